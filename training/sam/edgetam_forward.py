"""EdgeTAM's forward pass for many (scene, object) pairs at once, on the modules of transformers' class.

As in `forward`, the objects of several images share one call and upscaling stays channels-last. A runtime uses the best
of the three masks for ambiguous prompts, so these are computed beside the single one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wise_edge.training.sam.data import SamBatch
from wise_edge.training.sam.edgetam import MEAN, STD
from wise_edge.training.sam.forward import normalize, stride_two, unfold


def predict_edgetam(model: Any, batch: SamBatch) -> tuple[Tensor, Tensor]:
    """Predict the masks of every object of a batch from its prompt.

    Args:
        model: of `build_edgetam`.
        batch: B scenes with N objects; images have the model's input size.

    Returns:
        Low-resolution logits, float32 [N, 4, L, L], of the single mask and of the three for ambiguous prompts, and
        predicted IoUs, float32 [N, 4].
    """
    owners, decoder = torch.from_numpy(batch.owners), model.mask_decoder
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (MEAN, STD))
    fine, middle, embedding = model.vision_encoder(normalize(batch, mean, std)).fpn_hidden_states
    dense = embedding + model.no_memory_embedding[0, 0, :, None, None]
    dense = dense + model.prompt_encoder.no_mask_embed.weight[0, :, None, None]
    first = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([first.expand(len(owners), 1, -1, -1), _embed_prompts(model, batch)], dim=2)
    states, image = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=dense[owners],
        image_positional_embeddings=model.get_image_wide_positional_embeddings(),
        attention_similarity=None,
    )
    pixels = _upscale(decoder, image[:, 0], decoder.conv_s1(middle), decoder.conv_s0(fine), owners)
    masks = range(decoder.num_mask_tokens)
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](states[:, 0, 2 + i]) for i in masks], dim=2)
    logits = pixels @ weights
    return (
        torch.stack([unfold(logits[:, :, i : i + 1], embedding.shape[-1]) for i in masks], dim=1),
        decoder.iou_prediction_head(states[:, 0, 1]),
    )


def _embed_prompts(model: Any, batch: SamBatch) -> Tensor:
    points = None if batch.points is None else torch.from_numpy(batch.points)[:, None]
    labels = None if points is None else torch.ones(points.shape[:3], dtype=torch.int64)
    boxes = None if batch.boxes is None else torch.from_numpy(batch.boxes)[:, None]
    sparse: Tensor = model.prompt_encoder(points, labels, boxes, None)[0]
    return sparse


def _upscale(decoder: Any, image: Tensor, middle: Tensor, fine: Tensor, owners: Tensor) -> Tensor:
    """[N, G * G, C] -> [N, G * G * 16, C / 8], in the order of `forward.stride_two` twice."""
    x = stride_two(decoder.upscale_conv1, image) + _fold(middle, 1)[owners]
    x = nn.functional.gelu(nn.functional.layer_norm(x, x.shape[-1:], *_affine(decoder.upscale_layer_norm)))
    return nn.functional.gelu(stride_two(decoder.upscale_conv2, x) + _fold(fine, 2)[owners])


def _affine(norm: Any) -> tuple[Tensor, Tensor, float]:
    return norm.weight, norm.bias, norm.eps


def _fold(features: Tensor, times: int) -> Tensor:
    """[B, C, S, S] -> [B, S * S, C] in the order of `forward.stride_two`, `times` times."""
    batch, channels, side, _ = features.shape
    x = features.view(batch, channels, side >> times, *[2] * times, side >> times, *[2] * times)
    places = [2, 3 + times, *(place for step in range(times) for place in (3 + step, 4 + times + step))]
    return x.permute(0, *places, 1).reshape(batch, side * side, channels)
