"""A ViT's attention for graphs: in blocks of rows, so that no array of all pairs of patches exists.

segment-anything's encoder of 1024 px compares 4,096 patches with 4,096 in each of 12 heads: 0.8 GB an array, several at
once, and writing them takes as long as the products. The blocks use its weights and give its numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from segment_anything.modeling.image_encoder import get_rel_pos, window_partition
from torch import Tensor, nn

LARGEST_SCORES = 2**26
"""Bytes of the scores that a block holds: small enough to stay near a CPU's cores, large enough to keep them busy."""


def rewrite_vit(encoder: Any) -> Any:
    """Return an image encoder that shares its weights with one of segment-anything's, with its blocks as `ViTBlock`.

    Args:
        encoder: `ImageEncoderViT` or a descendant; others are returned as they are.
    """
    blocks = getattr(encoder, "blocks", ())
    if not blocks or not all(hasattr(getattr(block, "attn", None), "use_rel_pos") for block in blocks):
        return encoder
    rewritten = copy.copy(encoder)
    rewritten._modules = dict(encoder._modules)
    grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    rewritten.blocks = nn.ModuleList(ViTBlock(block, grid) for block in blocks)
    return rewritten


class ViTBlock(nn.Module):
    """A transformer block of segment-anything's image encoder, [1, G, G, C] to [1, G, G, C].

    It projects before it cuts windows, and back after it joined them. Padding has the same query, key and value
    everywhere: the projection's bias.

    Args:
        block: of segment-anything.
        grid: G, patches on a side.
    """

    down: Tensor | None
    across: Tensor | None
    into: Tensor | None
    back: Tensor | None

    def __init__(self, block: Any, grid: int) -> None:
        super().__init__()
        # Under the names of the stock block, by which a bundle names layers.
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.window_size = block.window_size
        self._side = block.window_size or grid
        into = back = None
        if block.window_size:
            places = torch.arange(1, grid**2 + 1).view(1, grid, grid, 1)
            windows = window_partition(places, block.window_size)[0].flatten()
            into = torch.where(windows > 0, windows - 1, grid**2)  # the row behind the last one is padding
            back = windows.argsort()[-(grid**2) :]
        self._is_padded = into is not None and len(into) > grid**2
        attention, side = block.attn, self._side
        tables = (attention.rel_pos_h, attention.rel_pos_w) if attention.use_rel_pos else (None, None)
        down, across = (
            None if table is None else get_rel_pos(side, side, table).detach().transpose(1, 2).contiguous()
            for table in tables
        )
        for name, buffer in (("into", into), ("back", back), ("down", down), ("across", across)):
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        hidden = self.norm1(x).flatten(0, 2)
        qkv = self.attn.qkv(hidden)
        if self._is_padded:
            qkv = torch.cat([qkv, self.attn.qkv.bias[None]])
        if self.into is not None:
            qkv = qkv.index_select(0, self.into)
        joined = self._attend(qkv.unflatten(0, (-1, self._side**2))).flatten(0, 1)
        if self.back is not None:
            joined = joined.index_select(0, self.back)
        x = x + self.attn.proj(joined).view(x.shape)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend within windows; maps [windows, patches, 3 * C] to [windows, patches, C]."""
        heads, side = self.attn.num_heads, self._side
        parts = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)  # 3, windows * heads, patches, d
        query, key, value = parts.unbind()
        key = (key * self.attn.scale).transpose(1, 2)
        blocks = -(-4 * len(query) * side**4 // LARGEST_SCORES)
        height = -(-side // blocks)
        done = []
        for top in range(0, side, height):
            rows = query.unflatten(1, (side, side))[:, top : top + height]
            scores = rows.flatten(1, 2) @ key
            if self.down is not None and self.across is not None:
                down = rows @ self.down[top : top + height]
                across = (rows.transpose(1, 2) @ self.across).transpose(1, 2)
                scores = scores + (down[..., None] + across[..., None, :]).flatten(3).flatten(1, 2)
            done.append(scores.softmax(-1) @ value)
        joined = torch.cat(done, dim=1) if len(done) > 1 else done[0]
        return joined.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
