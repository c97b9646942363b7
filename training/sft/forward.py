"""The policy's forward pass and losses in supervised training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wise_edge.training.sft.data import Batch
from wise_edge.training.sft.heads import LAYERS, dense_loss
from wise_edge.training.sft.layers import (
    Prefix,
    embed,
    encode_images,
    logits_of,
    patchify_batch,
    run_layer,
    text_rotary,
)


class Forward:
    """Runs a policy and its dense heads.

    Args:
        model: the policy.
        heads: the dense heads, from `heads.build_heads`.
        prefix: what every prompt begins with.
        max_positions: longest sequence, tokens.
    """

    def __init__(self, model: Any, heads: nn.ModuleList, prefix: Prefix, max_positions: int) -> None:

        self._model = model
        self._heads = heads
        self._prefix = prefix
        self._rotary = text_rotary(model, prefix.positions(max_positions))

    def losses(self, batch: Batch, dense: bool) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            batch: the batch.
            dense: whether to include the losses of the dense heads.

        Returns:
            "tower" and "language" (the dense heads) if `dense`, "text" if the batch has responses.
        """
        ids, weights = torch.from_numpy(batch.ids), torch.from_numpy(batch.weights)
        text = bool((weights > 0).any())
        image_embeds, middle, last = self._run(torch.from_numpy(batch.images), ids, text)
        losses: dict[str, Tensor] = {}
        if dense:
            classes, boxes = torch.from_numpy(batch.classes), torch.from_numpy(batch.boxes)
            for name, output in zip(("tower", "language"), self._see(image_embeds, middle), strict=True):
                losses[name] = dense_loss(output, classes, boxes)
        if text:
            losses["text"] = self._text_loss(last, ids, weights)
        return losses

    def dense(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of both dense heads, float32 [B, C, outputs], for uint8 images [B, S, S, 3]."""
        ids = torch.tensor(self._prefix.ids).expand(len(images), -1)
        image_embeds, middle, _ = self._run(images, ids, whole=False)
        return self._see(image_embeds, middle)

    def last_states(self, images: Tensor, ids: Tensor) -> Tensor:
        """Return the states after the last layer, float32 [B, T, hidden], for images and token ids [B, T]."""
        return self._run(images, ids, whole=True)[2]

    def _see(self, image_embeds: Tensor, middle: Tensor) -> list[Tensor]:
        states = (image_embeds, middle[:, self._prefix.image_slice])
        return [head(state) for head, state in zip(self._heads, states, strict=True)]

    def _run(self, images: Tensor, ids: Tensor, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return image tokens, the states after the lower language layers and, if `whole`, after the last one."""
        image_embeds = encode_images(self._model, patchify_batch(images))
        hidden = embed(self._model, ids, image_embeds, self._prefix)
        cos, sin = (table[: ids.shape[1]] for table in self._rotary)
        middle = hidden
        layers = self._model.model.language_model.layers
        for i, layer in enumerate(layers if whole else layers[:LAYERS]):
            hidden = run_layer(layer, hidden, cos, sin)
            middle = hidden if i < LAYERS else middle
        return image_embeds, middle, hidden

    def _text_loss(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        share = weights[:, 1:]
        wanted = share > 0
        logits = logits_of(self._model, hidden[:, :-1][wanted]).float()
        losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
        return (losses * share[wanted]).sum() / share.sum()
