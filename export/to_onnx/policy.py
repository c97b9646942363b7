"""A Qwen2.5-VL policy as ONNX graphs: the vision tower at its fixed grid, and the language model.

All images are squares of one size, so the window order, attention lengths and rotary angles of the vision tower are
constants; the stock forward pass computes them from data, which cannot be exported. The language model takes
embeddings and explicit keys and values, possibly none: one graph serves prefill and decode, and the token embedding
stays an array outside of it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class VisionTower(nn.Module):
    """A vision tower for images of one size.

    Maps pixel_values float32 [grid * grid, patch values] to image_embeds float32 [image tokens, hidden].

    Args:
        visual: `Qwen2_5_VisionTransformerPretrainedModel`.
        grid: patches along a side of the image.
    """

    kernel: Tensor
    order: Tensor
    inverse: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, visual: Any, grid: int) -> None:
        super().__init__()
        order, self._windows = window_order(visual, grid)
        self._unit = visual.spatial_merge_size**2
        angles = rotary_angles(visual, grid)
        angles = angles.view(len(order), self._unit, -1)[order].flatten(0, 1)
        self.visual = visual
        # A convolution of one patch is a matrix product; flattened, its kernel counts as a weight for the quantizers.
        self.register_buffer("kernel", visual.patch_embed.proj.weight.detach().flatten(1))
        self.register_buffer("order", torch.from_numpy(order))
        self.register_buffer("inverse", torch.from_numpy(np.argsort(order)))
        self.register_buffer("cos", angles.cos()[:, None])
        self.register_buffer("sin", angles.sin()[:, None])
        self.eval()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the embeddings of an image's tokens."""
        hidden = nn.functional.linear(pixel_values, self.kernel)
        hidden = hidden.view(len(self.order), self._unit, -1)[self.order].flatten(0, 1)
        for index, block in enumerate(self.visual.blocks):
            full = index in self.visual.fullatt_block_indexes
            parts = [(1, len(hidden))] if full else [(count, length * self._unit) for count, length in self._windows]
            hidden = hidden + _attend(block.attn, block.norm1(hidden), self.cos, self.sin, parts)
            hidden = hidden + block.mlp(block.norm2(hidden))
        embeds: Tensor = self.visual.merger(hidden)[self.inverse]
        return embeds


def window_order(visual: Any, grid: int) -> tuple[npt.NDArray[np.int64], list[tuple[int, int]]]:
    """Return the order of merged patches that makes windows contiguous, and (count, length) of the windows in it.

    Windows of one length are adjacent; those that the border cuts off follow the complete ones.
    """
    merge = visual.spatial_merge_size
    side, window = grid // merge, visual.window_size // visual.patch_size // merge
    index = np.arange(side * side).reshape(side, side)
    starts = range(0, side, window)
    windows = [index[y : y + window, x : x + window].ravel() for y in starts for x in starts]
    windows.sort(key=len, reverse=True)
    counts = Counter(map(len, windows))
    return np.concatenate(windows), [(counts[length], length) for length in sorted(counts, reverse=True)]


def rotary_angles(visual: Any, grid: int) -> Tensor:
    """Return the rotary angles [grid * grid, head_dim] of the patches, merge groups contiguous."""
    merge, inv_freq = visual.spatial_merge_size, visual.rotary_pos_emb.inv_freq
    index = torch.arange(grid * grid).view(grid // merge, merge, grid // merge, merge).transpose(1, 2).flatten()
    rows, columns = (axis[:, None] * inv_freq for axis in (index // grid, index % grid))
    angles: Tensor = torch.cat([rows, columns, rows, columns], dim=1)
    return angles


def _attend(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Attend within parts (count, length); hidden is [patches, width], cos and sin are [patches, 1, head_dim].

    Parts of one length form a batch: a graph with one product for each of the 64 windows of 840 px takes minutes to
    trace.
    """
    qkv = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1)
    query, key = (x * cos + _rotate_half(x) * sin for x in (qkv[:, 0], qkv[:, 1]))
    sizes = [count * length for count, length in parts]
    heads = [x.transpose(0, 1).split(sizes, dim=1) for x in (query * attention.scaling, key, qkv[:, 2])]
    done = [_attend_parts(q, k, v, count) for q, k, v, (count, _) in zip(*heads, parts, strict=True)]
    joined: Tensor = attention.proj(torch.cat(done, dim=1).transpose(0, 1).flatten(1))
    return joined


def _attend_parts(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Attend within each of `count` parts of equal length; all [heads, patches, head_dim]."""
    if count > 1:
        query, key, value = (x.unflatten(1, (count, -1)) for x in (query, key, value))
    out: Tensor = torch.softmax(query @ key.transpose(-2, -1), dim=-1) @ value
    return out.flatten(1, 2) if count > 1 else out


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    rotated: Tensor = torch.cat([-second, first], dim=-1)
    return rotated


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

    Args:
        model: `Qwen2_5_VLForConditionalGeneration`, loaded with eager attention.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language = model.model.language_model
        self.head = model.lm_head
        self.eval()

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the last token's logits and the longer cache."""
        rotary = self.language.rotary_emb(inputs_embeds, position_ids)
        mask = _causal(inputs_embeds.shape[1], past[0].shape[2])
        cache = _Appending(past)
        hidden = inputs_embeds
        for layer in self.language.layers:
            out = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
            hidden = out[0] if isinstance(out, tuple) else out
        return (self.head(self.language.norm(hidden[:, -1:])), *cache.present)


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
