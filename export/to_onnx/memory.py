"""The memory of SAM 2.1 and EdgeTAM as ONNX graphs: what is remembered of an object, and how an image is seen with it.

Numbers of frames and pointers are fixed; places that are empty have no weight in any softmax. Rotary positions belong
to the tokens of a frame, wherever it stands. Attention runs over a block of the image's tokens at a time: SAM 2.1 at
1024 px has 4,096, and eight remembered frames of as many, whose pairs would be 0.5 GB in each layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wise_edge.sam.video.memory import NO_OBJECT

_EMPTY = -1e4  # added to the logits of attention to an empty place
_BLOCK = 2**24  # pairs of tokens whose logits are in memory at once; 64 MB for each object


class MemoryEncoder(nn.Module):
    """Remembers a mask: the memory encoder, and EdgeTAM's perceiver behind it.

    Maps image_embeddings float32 [1, C, G, G], and of B objects low_res_masks float32 [B, 1, L, L] (logits),
    object_scores float32 [B] (logits) and is_prompted float32 [B] (1 for a mask that a prompt gave, which is
    remembered without its doubts) to memory float32 [B, T, D].

    Args:
        model: transformers' `Sam2VideoModel` or `EdgeTamVideoModel`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stock = model.memory_encoder
        perceiver = getattr(model, "spatial_perceiver", None)
        self.perceiver = None if perceiver is None else Perceiver(perceiver, _remembered_positions(model))
        self.no_memory = model.no_memory_embedding
        self.hidden = model.occlusion_spatial_embedding_parameter
        self.scale, self.bias = model.config.sigmoid_scale_for_mem_enc, model.config.sigmoid_bias_for_mem_enc
        self.side = model.prompt_encoder.mask_input_size[0] * 4
        self.eval()

    def forward(
        self, image_embeddings: Tensor, low_res_masks: Tensor, object_scores: Tensor, is_prompted: Tensor
    ) -> Tensor:
        """Return memories."""
        visible = (object_scores > 0).float()[:, None, None, None]
        certain = is_prompted[:, None, None, None]
        masks = torch.where(visible > 0, low_res_masks, NO_OBJECT)
        masks = functional.interpolate(masks, (self.side, self.side), mode="bilinear", align_corners=False)
        masks = certain * (masks > 0).float() + (1 - certain) * torch.sigmoid(masks)
        features = image_embeddings - self.no_memory.reshape(1, -1, 1, 1)
        memory, _ = self.stock(features, masks * self.scale + self.bias)
        if self.hidden is not None:
            memory = memory + (1 - visible) * self.hidden[..., None, None]
        if self.perceiver is not None:
            latents: Tensor = self.perceiver(memory)
            return latents
        return memory.flatten(2).transpose(1, 2)


class Perceiver(nn.Module):
    """EdgeTAM's spatial perceiver for several objects at once, which transformers' own forward pass does not allow.

    Maps memory float32 [B, D, G, G] to latents float32 [B, T, D]: those of the entire image, then one for each window.

    Args:
        stock: transformers' `EdgeTamVideoPerceiverResampler`.
        positions: of its input, float32 [1, D, G, G].
    """

    positions: Tensor

    def __init__(self, stock: Any, positions: Tensor) -> None:
        super().__init__()
        self.stock = stock
        self.windows = math.isqrt(stock.num_latents_2d)  # on each side
        self.register_buffer("positions", positions.flatten(2).transpose(1, 2))

    def forward(self, memory: Tensor) -> Tensor:
        """Return latents."""
        batch, width, side, _ = memory.shape
        found = []
        if self.stock.num_latents_1d:
            everywhere = memory.flatten(2).transpose(1, 2)
            latents = self.stock.latents_1d.expand(batch, -1, -1)
            for layer in self.stock.layers:
                latents = layer(latents, everywhere, self.positions.expand(batch, -1, -1))
            found.append(latents)
        if count := self.windows:
            across = side // count
            cut = memory.reshape(batch, width, count, across, count, across).permute(0, 2, 4, 3, 5, 1)
            latents = self.stock.latents_2d.expand(batch, -1, -1).reshape(-1, 1, width)
            for layer in self.stock.layers:
                latents = layer(latents, cut.reshape(-1, across * across, width))
            found.append(latents.reshape(batch, -1, width))
        merged: Tensor = self.stock.layer_norm(torch.cat(found, dim=1))
        return merged


class MemoryAttention(nn.Module):
    """Sees an image with what is remembered of objects.

    Maps image_embeddings float32 [1, C, G, G], and of B objects memory float32 [B, M, T, D], memory_age int64 [B, M]
    (frames since; 0 for one whose mask a prompt gave, however old; -1 for an empty place), pointers float32
    [B, P, C] and pointer_age int64 [B, P] (frames since; -1 for an empty place) to conditioned_embeddings float32
    [B, C, G, G], which the mask decoder takes for image_embeddings.

    Args:
        model: transformers' `Sam2VideoModel` or `EdgeTamVideoModel`.
    """

    image_positions: Tensor
    memory_positions: Tensor
    cos: Tensor
    sin: Tensor
    key_cos: Tensor
    key_sin: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stock = model.memory_attention
        self.no_memory = model.no_memory_embedding
        self.temporal = nn.Parameter(model.memory_temporal_positional_encoding[:, 0])  # [frames, 1, D]
        config = model.config
        self.pointer_range = float(config.max_object_pointers_in_encoder - 1)
        self.pointer_positions = (
            model.temporal_positional_encoding_projection_layer
            if config.enable_temporal_pos_encoding_for_object_pointers
            else None
        )
        with torch.no_grad():
            image = _positions(model, model.vision_encoder.neck, model.hidden_dim)
            remembered = _remembered_positions(model)
            if (perceiver := getattr(model, "spatial_perceiver", None)) is not None:
                remembered = perceiver(torch.zeros_like(remembered), remembered)[1]
            else:
                remembered = remembered.flatten(2).transpose(1, 2)
            rotary = self.stock.rotary_emb(image, self.stock.position_ids)
            of_keys = getattr(self.stock, "position_ids_k", self.stock.position_ids)
            rotary_of_keys = self.stock.rotary_emb(image, of_keys)
        self.register_buffer("image_positions", 0.1 * image.flatten(2).transpose(1, 2))
        self.register_buffer("memory_positions", remembered)
        for name, values in (("cos", rotary[0]), ("sin", rotary[1])):
            self.register_buffer(name, values.reshape(-1, values.shape[-1]))
        for name, values in (("key_cos", rotary_of_keys[0]), ("key_sin", rotary_of_keys[1])):
            self.register_buffer(name, values.reshape(-1, values.shape[-1]))
        self.eval()

    def forward(
        self, image_embeddings: Tensor, memory: Tensor, memory_age: Tensor, pointers: Tensor, pointer_age: Tensor
    ) -> Tensor:
        """Return the image as each object's memory lets it be seen."""
        _, channels, height, width = image_embeddings.shape
        image = (image_embeddings - self.no_memory.reshape(1, -1, 1, 1)).flatten(2).transpose(1, 2)
        image = image + self.image_positions
        positions = self.memory_positions[:, None] + self._temporal(memory_age)
        tokens, token_positions = self._split(pointers, pointer_age)
        frames = memory.shape[2]
        empty = torch.cat(
            [
                (memory_age < 0).repeat_interleave(frames, dim=1),
                (pointer_age < 0).repeat_interleave(tokens.shape[1] // pointers.shape[1], dim=1),
            ],
            dim=1,
        )
        bias = (empty.float() * _EMPTY)[:, None, None, :]
        for layer in self.stock.layers:
            image = image + self._look_around(layer.self_attn, layer.layer_norm1(image))
            cross = layer.cross_attn_image
            keys = self._rotate_memory(cross.k_proj(memory + positions), cross.num_attention_heads)
            keys = torch.cat([keys, _heads(cross.k_proj(tokens + token_positions), cross.num_attention_heads)], dim=2)
            values = torch.cat([cross.v_proj(memory).flatten(1, 2), cross.v_proj(tokens)], dim=1)
            queries = _heads(cross.q_proj(layer.layer_norm2(image)), cross.num_attention_heads)
            queries = _rotate(queries, self.cos, self.sin)
            image = image + attend(cross, queries, keys, _heads(values, cross.num_attention_heads), bias)
            image = image + _feed_forward(layer, layer.layer_norm3(image))
        image = self.stock.layer_norm(image)
        return image.transpose(1, 2).reshape(-1, channels, height, width)

    def _temporal(self, age: Tensor) -> Tensor:
        """Return the codes of ages, [B, M, 1, D]: the last is that of frames whose mask a prompt gave."""
        last = self.temporal.shape[0] - 1
        return self.temporal[torch.where(age > 0, age - 1, last)]

    def _split(self, pointers: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Return pointers as tokens as wide as memories, [B, P * C / D, D], and their positions."""
        width = self.temporal.shape[-1]
        batch, count, channels = pointers.shape
        parts = channels // width
        tokens = pointers.reshape(batch, count * parts, width)
        if self.pointer_positions is None:
            return tokens, torch.zeros_like(tokens)
        codes = self.pointer_positions(_sines(age.float() / self.pointer_range, channels))
        return tokens, codes.repeat_interleave(parts, dim=1)

    def _look_around(self, attention: Any, image: Tensor) -> Tensor:
        queries, keys, values = (
            _heads(project(image), attention.num_attention_heads)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return attend(attention, _rotate(queries, self.cos, self.sin), _rotate(keys, self.cos, self.sin), values)

    def _rotate_memory(self, keys: Tensor, heads: int) -> Tensor:
        """Rotate each frame's last tokens, which have a place in the image; return [B, heads, M * T, c]."""
        batch, frames, tokens, width = keys.shape
        keys = keys.reshape(batch, frames, tokens, heads, width // heads).permute(0, 3, 1, 2, 4)
        placed = self.key_cos.shape[0]
        turned = _rotate(keys[..., tokens - placed :, :], self.key_cos, self.key_sin)
        keys = torch.cat([keys[..., : tokens - placed, :], turned], dim=3) if placed < tokens else turned
        return keys.flatten(2, 3)


def _positions(model: Any, part: Any, channels: int) -> Tensor:
    """Return the sine code of the places of an image's features, [1, channels, G, G]."""
    height, width = model.backbone_feature_sizes[-1]
    positions: Tensor = part.position_encoding((1, channels, height, width), "cpu", torch.float32)
    return positions


def _remembered_positions(model: Any) -> Tensor:
    return _positions(model, model.memory_encoder, model.config.memory_encoder_output_channels)


def attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what one of transformers' attentions does, a block of queries at a time.

    Args:
        attention: has `scaling` and `o_proj`.
        queries: float32 [B or 1, heads, N, c].
        keys: float32 [B, heads, K, c].
        values: as the keys.
        bias: added to the logits, broadcast.
    """
    count = queries.shape[2]
    rows = max(1, min(count, _BLOCK // keys.shape[2]))
    keys = keys.transpose(2, 3)
    blocks = []
    for start in range(0, count, rows):
        logits = (queries[:, :, start : start + rows] * attention.scaling) @ keys
        blocks.append(torch.softmax(logits if bias is None else logits + bias, dim=-1) @ values)
    seen = torch.cat(blocks, dim=2).transpose(1, 2).flatten(2)
    projected: Tensor = attention.o_proj(seen)
    return projected


def _feed_forward(layer: Any, image: Tensor) -> Tensor:
    if hasattr(layer, "mlp"):
        made: Tensor = layer.mlp(image)
        return made
    made = layer.linear2(layer.activation(layer.linear1(image)))
    return made


def _heads(values: Tensor, heads: int) -> Tensor:
    """Return [B, N, heads * c] as [B, heads, N, c]."""
    batch, count, width = values.shape
    return values.reshape(batch, count, heads, width // heads).transpose(1, 2)


def _rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of numbers next to one another by the angles of their places."""
    first, second = values[..., 0::2], values[..., 1::2]
    turned = torch.stack([-second, first], dim=-1).flatten(-2)
    return values * cos + turned * sin


def _sines(places: Tensor, width: int) -> Tensor:
    """Return the sine code of places on a line, [..., width]."""
    half = width // 2
    powers = 10_000.0 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)
    angles = places[..., None] / powers
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
