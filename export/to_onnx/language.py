"""A Qwen-VL policy's language model as a graph that takes embeddings and explicit keys and values, possibly none.

One graph serves prefill and decode, and the token embedding stays an array outside of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class _Appending:
    """The part of a transformers cache that an attention layer calls; it appends to given keys and values."""

    def __init__(self, past: tuple[Tensor, ...]) -> None:
        self.past = past
        self.present: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        joined = torch.cat([self.past[2 * layer], key], dim=2), torch.cat([self.past[2 * layer + 1], value], dim=2)
        self.present += joined
        return joined


class LanguageModel(nn.Module):
    """A language model with explicit keys and values.

    Maps inputs_embeds float32 [1, T, hidden], position_ids int64 [3, 1, T] and past_key_0, past_value_0, past_key_1 ...
    float32 [1, kv_heads, P, head_dim] to logits float32 [1, 1, vocabulary] of the last token and present_key_0,
    present_value_0 ... float32 [1, kv_heads, P + T, head_dim]. P may be 0; attention is causal. No caller needs the
    logits of the other tokens, and they would take 0.5 GB for an image of 900 tokens at Qwen's vocabulary of 152,000.

    Qwen3-VL's takes deepstack_embeds float32 [layers, T, hidden] too: what is added after each of its first layers, the
    vision tower's on an image's tokens and 0 on all others (https://arxiv.org/abs/2406.04334).

    Args:
        model: transformers' model of one of the families, loaded with eager attention.
    """

    axes: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language = model.model.language_model
        self.head = model.lm_head
        self.register_buffer("axes", rotary_axes(self.language.rotary_emb))
        self.eval()

    def forward(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        past: tuple[Tensor, ...],
        deepstack_embeds: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the last token's logits and the longer cache."""
        rotary = self._rotate(position_ids)
        mask = _causal(inputs_embeds.shape[1], past[0].shape[2])
        cache = _Appending(past)
        hidden = inputs_embeds
        for index, layer in enumerate(self.language.layers):
            out = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
            hidden = out[0] if isinstance(out, tuple) else out
            if deepstack_embeds is not None and index < len(deepstack_embeds):
                hidden = hidden + deepstack_embeds[index]
        return (self.head(self.language.norm(hidden[:, -1:])), *cache.present)

    def _rotate(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [1, T, head_dim], as transformers, which writes Qwen3-VL's in place.

        In a graph that would be a dozen operators that scatter.
        """
        rotary = self.language.rotary_emb
        angles = position_ids[:, 0].index_select(0, self.axes).T.float() * rotary.inv_freq
        cos, sin = (part * rotary.attention_scaling for part in (angles.cos(), angles.sin()))
        return torch.cat([cos, cos], dim=1)[None], torch.cat([sin, sin], dim=1)[None]


def rotary_axes(rotary: Any) -> Tensor:
    """Return int64 [head_dim / 2]: whether time (0), row (1) or column (2) turns each pair of a head's channels.

    Args:
        rotary: transformers' rotary embedding of a language model; sections follow one another, or alternate.
    """
    apart = torch.eye(3, dtype=torch.int64)[:, None]  # three tokens, each at 1 along one axis and at 0 along the others
    _, sin = rotary(torch.zeros(1), apart)
    axes: Tensor = sin[0, :, : sin.shape[2] // 2].abs().argmax(dim=0)
    return axes


def _causal(length: int, past: int) -> Tensor:
    """Return the additive mask [length, past + length]: a token sees the past and the tokens up to itself."""
    rows = torch.arange(length)[:, None] + past
    columns = torch.arange(past + length)[None]
    mask: Tensor = torch.where(columns <= rows, 0.0, torch.finfo(torch.float32).min)
    return mask


def embedding_table(model: Any) -> npt.NDArray[Any]:
    """Return the token embedding [vocabulary, hidden]: float16 if that is lossless, else float32."""
    table: npt.NDArray[np.float32] = model.get_input_embeddings().weight.detach().float().numpy()
    half = table.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), table) else table
