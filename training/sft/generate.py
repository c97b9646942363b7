"""Greedy decoding for many images at once, for validation during training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wise_edge.training.sft.layers import (
    Prefix,
    embed,
    encode_images,
    finish_layer,
    logits_of,
    patchify_batch,
    project_qkv,
    text_rotary,
)


def generate(
    model: Any, prefix: Prefix, images: Tensor, prompts: list[list[int]], end: int, max_new_tokens: int
) -> list[list[int]]:
    """Decode greedily, each sequence up to its end token.

    Args:
        model: the policy.
        prefix: what every prompt begins with.
        images: uint8 [B, S, S, 3].
        prompts: B prompts as token ids, including the prefix, without padding.
        end: id of the token that ends a response.
        max_new_tokens: length of the longest response.

    Returns:
        B responses as token ids, without the end token.
    """
    with torch.inference_mode():
        return _Decoder(model, prefix, images, prompts, max_new_tokens).decode(end)


class _Decoder:
    """Right-padded prompts in a key/value cache; each row writes its next token after its own last one."""

    def __init__(
        self, model: Any, prefix: Prefix, images: Tensor, prompts: list[list[int]], max_new_tokens: int
    ) -> None:

        self._model = model
        self._layers = model.model.language_model.layers
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(self._lengths.max())
        self._limit = max_new_tokens
        ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts])
        hidden = embed(model, ids, encode_images(model, patchify_batch(images)), prefix)
        total = longest + max_new_tokens
        self._cos, self._sin = text_rotary(model, prefix.positions(total))
        shape = (len(prompts), model.config.text_config.num_key_value_heads, total, self._cos.shape[-1])
        self._keys = [torch.zeros(shape) for _ in self._layers]
        self._values = [torch.zeros(shape) for _ in self._layers]
        for i, layer in enumerate(self._layers):
            query, key, value = project_qkv(layer, hidden, self._cos[:longest], self._sin[:longest])
            self._keys[i][:, :, :longest], self._values[i][:, :, :longest] = key, value
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            hidden = finish_layer(layer, hidden, mixed)
        self._next = logits_of(model, hidden[torch.arange(len(prompts)), self._lengths - 1]).argmax(-1)

    def decode(self, end: int) -> list[list[int]]:
        """Return each row's tokens up to `end`."""
        done = self._next == end
        written = [self._next]
        while not bool(done.all()) and len(written) < self._limit:
            self._step()
            done |= self._next == end
            written.append(self._next)
        rows = torch.stack(written, dim=1).tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    def _step(self) -> None:
        rows = torch.arange(len(self._lengths))
        place = self._lengths
        cos, sin = (table[place][:, None, None] for table in (self._cos, self._sin))
        reach = int(place.max()) + 1
        visible = (torch.arange(reach) <= place[:, None])[:, None, None]
        hidden = self._model.model.language_model.embed_tokens(self._next)[:, None]
        for i, layer in enumerate(self._layers):
            query, key, value = project_qkv(layer, hidden, cos, sin)
            self._keys[i][rows, :, place], self._values[i][rows, :, place] = key[:, :, 0], value[:, :, 0]
            mixed = torch.nn.functional.scaled_dot_product_attention(
                query,
                self._keys[i][:, :, :reach],
                self._values[i][:, :, :reach],
                attn_mask=visible,
                enable_gqa=True,
            )
            hidden = finish_layer(layer, hidden, mixed)
        self._next = logits_of(self._model, hidden[:, 0]).argmax(-1)
        self._lengths = self._lengths + 1
