"""A Qwen-VL policy's vision tower as a graph for images of one grid.

The number of patches along each side is fixed, so the order of windows, attention lengths, rotary angles and learned
positions are constants; the stock forward pass computes them from data, which cannot be exported. Images of several
grids take one graph each.

What the families differ in is read from transformers' module itself: Qwen2.5-VL attends within windows in most layers,
Qwen3-VL adds learned positions and returns features of deeper layers, Qwen2-VL does neither.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class VisionTower(nn.Module):
    """A vision tower for images of one grid.

    Maps pixel_values float32 [columns * rows, patch values] to image_embeds float32 [image tokens, hidden], and for
    Qwen3-VL also to deepstack_embeds float32 [layers, image tokens, hidden].

    Args:
        visual: transformers' vision tower of one of the families.
        columns: patches along the width.
        rows: patches along the height.
    """

    kernel: Tensor
    positions: Tensor | None
    order: Tensor | None
    inverse: Tensor | None
    cos: Tensor
    sin: Tensor

    def __init__(self, visual: Any, columns: int, rows: int) -> None:
        super().__init__()
        self.visual = visual
        self._unit = visual.spatial_merge_size**2
        layers = range(len(visual.blocks))
        self._full = [layer for layer in layers if layer in getattr(visual, "fullatt_block_indexes", layers)]
        self._deeper = list(getattr(visual, "deepstack_visual_indexes", ()))
        positions = order = inverse = None
        if hasattr(visual, "pos_embed"):
            positions = learned_positions(visual, columns, rows)
        angles = rotary_angles(visual, columns, rows)
        if len(self._full) < len(layers):
            places, self._windows = window_order(visual, columns, rows)
            order, inverse = torch.from_numpy(places), torch.from_numpy(np.argsort(places))
            angles = angles.view(len(order), self._unit, -1)[order].flatten(0, 1)
        # A convolution of one patch is a matrix product; flattened, its kernel counts as a weight for the quantizers.
        self.register_buffer("kernel", visual.patch_embed.proj.weight.detach().flatten(1))
        self.register_buffer("positions", positions)
        self.register_buffer("order", order)
        self.register_buffer("inverse", inverse)
        self.register_buffer("cos", angles.cos()[:, None])
        self.register_buffer("sin", angles.sin()[:, None])
        self.eval()

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the embeddings of an image's tokens, and what the language model's first layers add to them."""
        hidden = nn.functional.linear(pixel_values, self.kernel, self.visual.patch_embed.proj.bias)
        if self.positions is not None:
            hidden = hidden + self.positions
        if self.order is not None:
            hidden = hidden.view(len(self.order), self._unit, -1)[self.order].flatten(0, 1)
        deeper = []
        for index, block in enumerate(self.visual.blocks):
            whole = [(1, len(hidden))]
            parts = whole if index in self._full else [(count, size * self._unit) for count, size in self._windows]
            hidden = hidden + _attend(block.attn, block.norm1(hidden), self.cos, self.sin, parts)
            hidden = hidden + block.mlp(block.norm2(hidden))
            if index in self._deeper:
                deeper.append(self.visual.deepstack_merger_list[self._deeper.index(index)](hidden))
        embeds: Tensor = self.visual.merger(hidden)
        if self.inverse is not None:
            embeds = embeds[self.inverse]
        return (embeds, torch.stack(deeper)) if deeper else embeds


def window_order(visual: Any, columns: int, rows: int) -> tuple[npt.NDArray[np.int64], list[tuple[int, int]]]:
    """Return the order of merged patches that makes windows contiguous, and (count, length) of the windows in it.

    Windows of one length are adjacent; those that the border cuts off follow the complete ones.
    """
    merge = visual.spatial_merge_size
    across, down, window = columns // merge, rows // merge, visual.window_size // visual.patch_size // merge
    index = np.arange(down * across).reshape(down, across)
    starts = [(y, x) for y in range(0, down, window) for x in range(0, across, window)]
    windows = [index[y : y + window, x : x + window].ravel() for y, x in starts]
    windows.sort(key=len, reverse=True)
    counts = Counter(map(len, windows))
    return np.concatenate(windows), [(counts[length], length) for length in sorted(counts, reverse=True)]


def rotary_angles(visual: Any, columns: int, rows: int) -> Tensor:
    """Return the rotary angles [columns * rows, head_dim] of the patches, merge groups contiguous."""
    inv_freq = visual.rotary_pos_emb.inv_freq
    index = _group(torch.arange(rows * columns).view(rows, columns, 1), visual.spatial_merge_size)[:, 0]
    down, across = (axis[:, None] * inv_freq for axis in (index // columns, index % columns))
    angles: Tensor = torch.cat([down, across, down, across], dim=1)
    return angles


def learned_positions(visual: Any, columns: int, rows: int) -> Tensor:
    """Return the learned positions [columns * rows, width] of the patches, merge groups contiguous.

    The tower has one for each place of a square grid, row by row. Other grids interpolate between them, corner to
    corner.
    """
    places, shares = interpolation(visual, columns, rows)
    positions: Tensor = (visual.pos_embed.weight.detach()[places] * shares[..., None]).sum(dim=1)
    return positions


def interpolation(visual: Any, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return the four learned positions around each patch and their shares, [columns * rows, 4], groups contiguous."""
    side = visual.num_grid_per_side
    near, weights = [], []
    for count in (rows, columns):
        exact = torch.linspace(0, side - 1, count)
        below = exact.long()
        near.append((below, (below + 1).clamp(max=side - 1)))
        weights.append((1 - exact + below, exact - below))
    corners = [(down, across) for down in range(2) for across in range(2)]
    places = torch.stack([near[0][down][:, None] * side + near[1][across] for down, across in corners], dim=2)
    shares = torch.stack([weights[0][down][:, None] * weights[1][across] for down, across in corners], dim=2)
    return _group(places, visual.spatial_merge_size), _group(shares, visual.spatial_merge_size)


def _group(values: Tensor, merge: int) -> Tensor:
    """Return values [rows, columns, n] as [rows * columns, n], groups of merge x merge patches contiguous."""
    rows, columns, _ = values.shape
    blocks = values.reshape(rows // merge, merge, columns // merge, merge, -1)
    return blocks.transpose(1, 2).flatten(0, 3)


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
