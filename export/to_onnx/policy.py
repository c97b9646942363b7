"""A Qwen2.5-VL policy as ONNX graphs: the vision tower at its fixed grid, and the language model.

Images are squares of one size, so that window order, attention lengths and rotary angles of the vision tower are
constants; the stock forward pass computes them from data, which does not export. The language model takes embeddings
and explicit keys and values, possibly none, so that one graph serves prefill and decode and the token embedding stays
an array outside of it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.extras import require

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_vision(visual: Any, grid: int) -> nn.Module:
    """Wrap a vision tower for images of one size.

    Args:
        visual: `Qwen2_5_VisionTransformerPretrainedModel`.
        grid: patches along a side of the image.

    Returns:
        A module from pixel_values float32 [grid * grid, patch values] to image_embeds float32 [image tokens, hidden].
    """
    torch = require("torch", "export")
    order, windows = window_order(visual, grid)
    unit = visual.spatial_merge_size**2
    angles = rotary_angles(visual, grid)
    angles = angles.view(len(order), unit, -1)[order].flatten(0, 1)

    class Vision(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.visual = visual
            # A convolution of one patch is a matrix product; flat, its kernel is seen as a weight by the quantizers.
            self.register_buffer("kernel", visual.patch_embed.proj.weight.detach().flatten(1))
            self.register_buffer("order", torch.from_numpy(order))
            self.register_buffer("inverse", torch.from_numpy(np.argsort(order)))
            self.register_buffer("cos", angles.cos()[:, None])
            self.register_buffer("sin", angles.sin()[:, None])

        def forward(self, pixel_values: Tensor) -> Tensor:
            hidden = torch.nn.functional.linear(pixel_values, self.kernel)
            hidden = hidden.view(len(order), unit, -1)[self.order].flatten(0, 1)
            for index, block in enumerate(visual.blocks):
                full = index in visual.fullatt_block_indexes
                parts = [(1, len(hidden))] if full else [(count, length * unit) for count, length in windows]
                hidden = hidden + _attend(block.attn, block.norm1(hidden), self.cos, self.sin, parts)
                hidden = hidden + block.mlp(block.norm2(hidden))
            embeds: Tensor = visual.merger(hidden)[self.inverse]
            return embeds

    return Vision().eval()


def window_order(visual: Any, grid: int) -> tuple[npt.NDArray[np.int64], list[tuple[int, int]]]:
    """Return the order of merged patches that makes windows contiguous, and how many windows of which length follow.

    Windows of one length stand together: those that the border cuts off behind the whole ones.
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
    torch = require("torch", "export")
    index = torch.arange(grid * grid).view(grid // merge, merge, grid // merge, merge).transpose(1, 2).flatten()
    rows, columns = (axis[:, None] * inv_freq for axis in (index // grid, index % grid))
    angles: Tensor = torch.cat([rows, columns, rows, columns], dim=1)
    return angles


def _attend(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Attend within parts, (how many, of which length); hidden [patches, width], cos and sin [patches, 1, head_dim].

    Parts of one length are a batch: a graph with a product for each of the 64 windows of 840 px takes minutes to trace.
    """
    torch = require("torch", "export")
    qkv = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1)
    query, key = (x * cos + _rotate_half(x) * sin for x in (qkv[:, 0], qkv[:, 1]))
    sizes = [count * length for count, length in parts]
    heads = [x.transpose(0, 1).split(sizes, dim=1) for x in (query * attention.scaling, key, qkv[:, 2])]
    done = [_attend_parts(q, k, v, count) for q, k, v, (count, _) in zip(*heads, parts, strict=True)]
    joined: Tensor = attention.proj(torch.cat(done, dim=1).transpose(0, 1).flatten(1))
    return joined


def _attend_parts(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Attend within each of `count` parts of equal length; all [heads, patches, head_dim]."""
    torch = require("torch", "export")
    if count > 1:
        query, key, value = (x.unflatten(1, (count, -1)) for x in (query, key, value))
    out: Tensor = torch.softmax(query @ key.transpose(-2, -1), dim=-1) @ value
    return out.flatten(1, 2) if count > 1 else out


def _rotate_half(x: Tensor) -> Tensor:
    torch = require("torch", "export")
    first, second = x.chunk(2, dim=-1)
    rotated: Tensor = torch.cat([-second, first], dim=-1)
    return rotated


class _Appending:
    """The part of a transformers cache that an attention layer calls: appends to given keys and values."""

    def __init__(self, past: tuple[Tensor, ...]) -> None:
        self.past = past
        self.present: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        torch = require("torch", "export")
        joined = torch.cat([self.past[2 * layer], key], dim=2), torch.cat([self.past[2 * layer + 1], value], dim=2)
        self.present += joined
        return joined


def build_decoder(model: Any) -> nn.Module:
    """Wrap the language model of a `Qwen2_5_VLForConditionalGeneration` loaded with eager attention.

    Returns:
        A module from inputs_embeds float32 [1, T, hidden], position_ids int64 [3, 1, T] and past_key_0, past_value_0,
        past_key_1 ... float32 [1, kv_heads, P, head_dim] to logits float32 [1, 1, vocabulary] of the last token and
        present_key_0, present_value_0 ... float32 [1, kv_heads, P + T, head_dim]. P may be 0; attention is causal.
        The logits of the others are asked for by nobody, and take 0.5 GB for an image of 900 tokens at Qwen's
        vocabulary of 152,000.
    """
    torch = require("torch", "export")
    language = model.model.language_model

    class Decoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.language = language
            self.head = model.lm_head

        def forward(self, inputs_embeds: Tensor, position_ids: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rotary = language.rotary_emb(inputs_embeds, position_ids)
            mask = _causal(inputs_embeds.shape[1], past[0].shape[2])
            cache = _Appending(past)
            hidden = inputs_embeds
            for layer in language.layers:
                out = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
                hidden = out[0] if isinstance(out, tuple) else out
            return (self.head(language.norm(hidden[:, -1:])), *cache.present)

    return Decoder().eval()


def _causal(length: int, past: int) -> Tensor:
    """Return the additive mask [length, past + length]: a token sees the past and the tokens up to itself."""
    torch = require("torch", "export")
    rows = torch.arange(length)[:, None] + past
    columns = torch.arange(past + length)[None]
    mask: Tensor = torch.where(columns <= rows, 0.0, torch.finfo(torch.float32).min)
    return mask


def embedding_table(model: Any) -> npt.NDArray[Any]:
    """Return the token embedding [vocabulary, hidden]: float16 where that loses nothing, else float32."""
    table: npt.NDArray[np.float32] = model.get_input_embeddings().weight.detach().float().numpy()
    half = table.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), table) else table
