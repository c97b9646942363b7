"""The policy's forward pass for images of one fixed size, layer by layer, on transformers' own weights.

The stock forward pass of `Qwen2_5_VLForConditionalGeneration` handles images of any size: it loops over them in the
vision attention, builds positions per sample and computes logits everywhere. Here every image is one attention window
and every prompt begins with the same prefix. The functions below therefore run one batched attention per layer, compute
positions once, and compute logits only where they are needed. A test checks that they equal the stock forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wise_edge.policy.image import IMAGE_MEAN, IMAGE_STD
from wise_edge.training.sft.model import MERGE, PATCH


@dataclass(frozen=True)
class Prefix:
    """What every prompt begins with: the system message and the image's placeholders."""

    ids: tuple[int, ...]
    """Token ids; the image placeholders are one run."""
    image_start: int
    """Index of the first image placeholder."""
    image_count: int
    """Number of image placeholders; a square."""

    @property
    def image_slice(self) -> slice:
        """The positions of the image tokens."""
        return slice(self.image_start, self.image_start + self.image_count)

    def positions(self, length: int) -> Tensor:
        """Return M-RoPE position ids, int64 [3, length], of any prompt that begins with this prefix."""
        side = int(self.image_count**0.5)
        cell = torch.arange(self.image_count)
        image = torch.stack([cell * 0, cell // side, cell % side]) + self.image_start
        rest = torch.arange(max(0, length - self.image_start - self.image_count)) + self.image_start + side
        parts = [torch.arange(self.image_start).expand(3, -1), image, rest.expand(3, -1)]
        return torch.cat(parts, dim=1)[:, :length]


def patchify_batch(images: Tensor) -> Tensor:
    """Cut images into normalized patches in the processor's order (merge blocks of 2 x 2, row by row).

    Args:
        images: uint8 [B, S, S, 3], RGB.

    Returns:
        float32 [B, N, 3 * 14 * 14], N patches; without the processor's temporal repetition, because
        `encode_images` sums the kernel over it.
    """
    batch, side = images.shape[:2]
    mean = torch.tensor(IMAGE_MEAN)
    std = torch.tensor(IMAGE_STD)
    pixels = (images.float() / 255.0 - mean) / std
    cells = side // (PATCH * MERGE)
    blocks = pixels.view(batch, cells, MERGE, PATCH, cells, MERGE, PATCH, 3)
    patches = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6)
    return patches.reshape(batch, (cells * MERGE) ** 2, 3 * PATCH * PATCH)


def encode_images(model: Any, patches: Tensor) -> Tensor:
    """Run the vision tower over equally large images at once.

    Args:
        model: the policy.
        patches: float32 [B, N, 588], from `patchify_batch`.

    Returns:
        float32 [B, N / 4, hidden], merged image tokens in row-major order.
    """
    visual = model.model.visual
    batch, count, _ = patches.shape
    kernel = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
    hidden = torch.nn.functional.linear(patches, kernel).float()  # the residual stream is never rounded
    cos, sin = _vision_rotary(visual, count)
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(_rms_norm(hidden, block.norm1))
        query, key, value = qkv.view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value, torch.zeros(1))
        hidden = hidden + attention.proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + _feed_forward(block.mlp, _rms_norm(hidden, block.norm2))
    merged = _rms_norm(hidden, visual.merger.ln_q).view(batch, count // MERGE**2, -1)
    return visual.merger.mlp(merged).float()


def _vision_rotary(visual: Any, count: int) -> tuple[Tensor, Tensor]:
    side = int(count**0.5)
    index = torch.arange(side * side).view(side // MERGE, MERGE, side // MERGE, MERGE).permute(0, 2, 1, 3).flatten()
    positions = torch.stack([index // side, index % side], dim=-1)
    angles = (positions[..., None].float() * visual.rotary_pos_emb.inv_freq).flatten(1)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def text_rotary(model: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, float32 [..., T, head_dim], of position ids int64 [3, ..., T]."""
    rotary = model.model.language_model.rotary_emb
    angles = positions[..., None].float() * rotary.inv_freq
    pieces = angles.split(tuple(rotary.mrope_section), dim=-1)
    angles = torch.cat([piece[i % 3] for i, piece in enumerate(pieces)], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def embed(model: Any, ids: Tensor, image_embeds: Tensor, prefix: Prefix) -> Tensor:
    """Return token embeddings, float32 [B, T, hidden], with the image tokens in place.

    Args:
        model: the policy.
        ids: int64 [B, T], beginning with the prefix.
        image_embeds: float32 [B, image_count, hidden].
        prefix: what every prompt begins with.
    """
    embeds = model.model.language_model.embed_tokens(ids)
    end = prefix.image_slice.stop
    return torch.cat([embeds[:, : prefix.image_start], image_embeds, embeds[:, end:]], dim=1)


def run_layer(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Run one text layer causally over right-padded sequences.

    Args:
        layer: a decoder layer of the policy.
        hidden: float32 [B, T, hidden].
        cos: float32 [T, head_dim].
        sin: like `cos`.

    Returns:
        float32 [B, T, hidden].
    """
    length = hidden.shape[1]
    mask = torch.full((length, length), -1e30).triu(1)
    query, key, value = project_qkv(layer, hidden, cos, sin)
    return finish_layer(layer, hidden, _attend(query, key, value, mask))


def project_qkv(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries and keys and the values, float32 [B, heads, T, head_dim], of one text layer."""
    attention = layer.self_attn
    batch, length, _ = hidden.shape
    normed = _rms_norm(hidden, layer.input_layernorm)
    query, key, value = (
        projection(normed).view(batch, length, -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return _rotate(query, cos, sin), _rotate(key, cos, sin), value


def finish_layer(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    """Add attention output [B, heads, T, head_dim] and the feed-forward of one text layer to `hidden`."""
    hidden = hidden + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + _feed_forward(layer.mlp, _rms_norm(hidden, layer.post_attention_layernorm))


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Return logits, float32 [..., vocab], of last-layer states [..., hidden]."""
    text = model.model.language_model
    return torch.nn.functional.linear(_rms_norm(hidden, text.norm), text.embed_tokens.weight)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend with plain products; in bfloat16 on a CPU the backward pass of the fused kernel is ten times slower.

    Args:
        query: [B, heads, T, head_dim].
        key: [B, kv_heads, T, head_dim].
        value: like `key`.
        bias: float32, added to the scores; [T, T] or [1].

    Returns:
        [B, heads, T, head_dim].
    """
    batch, heads, length, width = query.shape
    shared = heads // key.shape[1]
    key, value = key.flatten(0, 1), value.flatten(0, 1)
    query = (query * width**-0.5).reshape(len(key), shared * length, width).to(value.dtype)
    bias = bias.repeat(shared, 1) if bias.ndim == 2 else bias[:, None]
    scores = torch.baddbmm(
        bias.to(value.dtype).expand(len(key), shared * length, length), query, key.to(value.dtype).mT
    )
    return torch.bmm(torch.softmax(scores, dim=-1), value).view(batch, heads, length, width)


def _rms_norm(hidden: Tensor, norm: Any) -> Tensor:
    normed = torch.nn.functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
    # Cast once here; otherwise autocast casts again for every projection that reads it.
    return normed.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else normed


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    return states * cos + torch.cat([-states[..., half:], states[..., :half]], dim=-1) * sin


def _feed_forward(mlp: Any, hidden: Tensor) -> Tensor:
    return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(hidden)) * mlp.up_proj(hidden))
