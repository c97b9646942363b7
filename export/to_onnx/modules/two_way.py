"""A mask decoder for graphs: its few tokens are projected, not the image.

The image has thousands of tokens and a prompt fewer than ten. A product of the image with a projection, and of that
with a prompt's tokens, is computed from the other end: the tokens go through the projection, which costs next to
nothing, and then meet the image. Half of the arithmetic remains, with the library's weights and the same result.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


class TwoWayTransformer(nn.Module):
    """segment-anything's `TwoWayTransformer`, with its weights.

    Args:
        stock: segment-anything's module, or a descendant's of the same names.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, image: Tensor, places: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Return what prompts see in an image, and the image as they see it.

        Args:
            image: [P, HW, C], tokens of the image with each prompt's mask.
            places: [1, HW, C], positional encoding of the image.
            prompt: [P, T, C], tokens of the prompts.

        Returns:
            [P, T, C] and [P, HW, C].
        """
        tokens = prompt
        for layer in self.stock.layers:
            if layer.skip_first_layer_pe:
                tokens = attend(layer.self_attn, tokens, tokens, tokens)
            else:
                placed = tokens + prompt
                tokens = tokens + attend(layer.self_attn, placed, placed, tokens)
            tokens = layer.norm1(tokens)
            located = image + places
            tokens = tokens + look(layer.cross_attn_token_to_image, tokens + prompt, located, image)
            tokens = layer.norm2(tokens)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = layer.norm4(image + answer(layer.cross_attn_image_to_token, located, tokens + prompt, tokens))
        seen = look(self.stock.final_attn_token_to_image, tokens + prompt, image + places, image)
        return self.stock.norm_final_attn(tokens + seen), image


def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend as the library does; all [P, T, C]."""
    query = _scale(attention, _heads(attention, attention.q_proj(query)))
    key, value = _heads(attention, attention.k_proj(key)), _heads(attention, attention.v_proj(value))
    seen = (query @ key.transpose(2, 3)).softmax(-1) @ value
    out: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2))
    return out


def look(attention: Any, tokens: Tensor, located: Tensor, image: Tensor) -> Tensor:
    """Return what tokens [P, T, C] see in an image [P, HW, C], `located` with its positional encoding.

    The keys' bias adds the same to all scores of a token, which the softmax takes off again.
    """
    count = attention.num_heads
    query = _scale(attention, _heads(attention, attention.q_proj(tokens)))
    query = query @ attention.k_proj.weight.unflatten(0, (count, -1))  # [P, heads, T, C]
    scores = (located @ query.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
    seen = (scores.softmax(-1) @ image).unflatten(1, (count, -1))
    seen = seen @ attention.v_proj.weight.unflatten(0, (count, -1)).transpose(1, 2)
    out: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return out


def answer(attention: Any, located: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what an image `located` [P, HW, C] sees in tokens [P, T, C], whose keys have the prompts added."""
    count = attention.num_heads
    key = _scale(attention, _heads(attention, attention.k_proj(keys)))
    bias = (key @ attention.q_proj.bias.view(count, -1, 1)).flatten(1)
    key = (key @ attention.q_proj.weight.unflatten(0, (count, -1))).flatten(1, 2)
    scores = located @ key.transpose(1, 2) + bias[:, None]
    shares = scores.unflatten(2, (count, -1)).softmax(-1).flatten(2)
    value = _heads(attention, attention.v_proj(values))
    value = value @ attention.out_proj.weight.unflatten(1, (count, -1)).permute(1, 2, 0)
    # The shares of each head add up to 1, so that the bias may be one of the values.
    return shares @ (value.flatten(1, 2) + attention.out_proj.bias / count)


def _heads(attention: Any, x: Tensor) -> Tensor:
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _scale(attention: Any, x: Tensor) -> Tensor:
    return x / math.sqrt(attention.internal_dim // attention.num_heads)


class MaskUpscaling(nn.Module):
    """segment-anything's upscaling of an image's tokens, and the masks in it.

    A transposed convolution whose kernel is its stride is a product, and a pixel's four parts stay beside one another
    until there are masks, which are the smallest arrays to rearrange.

    Args:
        upscaling: `output_upscaling` of a mask decoder.
    """

    def __init__(self, upscaling: Any) -> None:
        super().__init__()
        self.first, self.norm, self.first_activation, self.second, self.second_activation = upscaling

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Return logits [P, M, 4 * G, 4 * G].

        Args:
            image: [P, G * G, C].
            masks: [P, M, C / 8], what each mask looks for.
        """
        side = math.isqrt(image.shape[1])
        parts = _enlarge(self.first, image.flatten(0, 1))
        parts = nn.functional.layer_norm(parts, parts.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        parts = self.second_activation(_enlarge(self.second, self.first_activation(parts)))
        found = parts.view(image.shape[0], -1, parts.shape[-1]) @ masks.transpose(1, 2)
        found = found.view(image.shape[0], side, side, 2, 2, 2, 2, masks.shape[1])
        return found.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(image.shape[0], masks.shape[1], 4 * side, 4 * side)


def _enlarge(convolution: Any, pixels: Tensor) -> Tensor:
    """Return the four parts of each pixel, [4 * N, C'] of [N, C]."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return nn.functional.linear(pixels, weight, convolution.bias.repeat(4)).view(-1, convolution.out_channels)
