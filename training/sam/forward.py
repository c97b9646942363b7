"""SAM's forward pass for many (scene, object) pairs at once, on segment-anything's own weights.

segment-anything's decoder accepts one image per call and upscales channels-first for all four mask tokens. Here the
objects of several images share one call, upscaling stays channels-last (a transposed convolution whose stride equals
its kernel is a matrix product), and only the mask of the single-mask token is computed. A test compares the two.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional

from wise_edge.training.sam.data import SamBatch


def predict(sam: Sam, batch: SamBatch) -> tuple[Tensor, Tensor]:
    """Predict the mask of every object of a batch from its prompt.

    Args:
        sam: the model.
        batch: B scenes with N objects; images have the model's input size.

    Returns:
        Low-resolution logits, float32 [N, L, L], and predicted IoUs, float32 [N].
    """
    embeddings = sam.image_encoder(normalize(batch, sam.pixel_mean, sam.pixel_std))
    return decode_objects(sam, embeddings, torch.from_numpy(batch.owners), embed_prompts(sam, batch))


def normalize(batch: SamBatch, mean: Tensor, std: Tensor) -> Tensor:
    """Return the images, float32 [B, 3, S, S], without `mean` and divided by `std`, [3, 1, 1] of 0 to 255."""
    pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2).float()
    return (pixels - mean) / std


def embed_prompts(sam: Sam, batch: SamBatch) -> Tensor:
    """Embed boxes and points of N objects as segment-anything does; returns float32 [N, tokens, channels]."""
    points = None
    if batch.points is not None:
        points = torch.from_numpy(batch.points), torch.ones(batch.points.shape[:2])
    boxes = None if batch.boxes is None else torch.from_numpy(batch.boxes)
    sparse: Tensor = sam.prompt_encoder(points, boxes, None)[0]
    return sparse


def decode_objects(sam: Sam, embeddings: Tensor, owners: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the masks of N objects in B images.

    Args:
        sam: the model.
        embeddings: image embeddings, float32 [B, C, G, G].
        owners: image of each object, int64 [N].
        sparse: prompt tokens, float32 [N, tokens, C].

    Returns:
        Logits, float32 [N, 4 * G, 4 * G], and predicted IoUs, float32 [N], of the single-mask output.
    """
    decoder = sam.mask_decoder
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output_tokens.expand(len(owners), -1, -1), sparse], dim=1)
    dense = embeddings + sam.prompt_encoder.no_mask_embed.weight[0][:, None, None]
    states, image = decoder.transformer(dense[owners], sam.prompt_encoder.get_dense_pe(), tokens)
    pixels = _upscale(decoder.output_upscaling, image)
    mask_weights = decoder.output_hypernetworks_mlps[0](states[:, 1])
    logits = unfold(pixels @ mask_weights[:, :, None], embeddings.shape[-1])
    return logits, decoder.iou_prediction_head(states[:, 0])[:, 0]


def _upscale(layers: Any, image: Tensor) -> Tensor:
    """[N, G * G, C] -> [N, G * G * 2 * 2 * 2 * 2, C / 8]: sub-pixels (row, column) of a patch, coarse before fine."""
    first, norm, activation, second, last_activation = layers
    x = stride_two(first, image)
    x = functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    pixels: Tensor = last_activation(stride_two(second, activation(x)))
    return pixels


def stride_two(layer: nn.Module, x: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2, [N, P, C] -> [N, P * 2 * 2, C']."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    y = x @ weight.permute(0, 2, 3, 1).reshape(x.shape[-1], -1)
    return y.view(x.shape[0], 4 * x.shape[1], -1) + bias


def unfold(values: Tensor, grid: int) -> Tensor:
    """[N, G * G * 16, 1] in the order of `_upscale` -> [N, 4 * G, 4 * G]."""
    x = values.view(-1, grid, grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(-1, 4 * grid, 4 * grid)
