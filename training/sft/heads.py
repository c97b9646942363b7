"""Dense heads, discarded after training: the object in each cell of the grid of image tokens, and its box.

One head reads the vision tower's merged tokens, the other the same tokens after a few language layers. Rotary positions
give the tower only relative places; the language layers learn absolute places. The heads teach both long before text
would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wise_edge.training.sft.data import ATTRIBUTES

LAYERS = 2
"""Language layers below the second head."""

_BOX_WEIGHT = 5.0


@dataclass(frozen=True)
class DenseScores:
    """Scores of a head over the cells that hold an object (presence: over all cells)."""

    presence: float
    """Share of cells whose presence is correct."""
    attributes: dict[str, float]
    """Share of objects with the correct value, for each attribute."""
    box_error: float
    """Mean absolute error of a coordinate, fraction of the image's side."""


def build_heads(width: int, seed: int) -> torch.nn.ModuleList:
    """Return two heads that map states of `width` to presence, the logits of each attribute, and a box."""
    torch.manual_seed(seed)
    outputs = 1 + sum(len(values) for values in ATTRIBUTES.values()) + 4
    layers = [torch.nn.Linear(width, outputs) for _ in range(2)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=0.02)
        torch.nn.init.zeros_(layer.bias)
    return torch.nn.ModuleList(torch.nn.Sequential(torch.nn.RMSNorm(width), layer) for layer in layers)


def dense_loss(outputs: Tensor, classes: Tensor, boxes: Tensor) -> Tensor:
    """Return the loss of one head.

    Args:
        outputs: float32 [B, C, outputs].
        classes: int64 [B, C, 4]; -1 if a cell holds no object.
        boxes: float32 [B, C, 4], XYXY fractions of the image's side.
    """
    present = classes[..., 0] >= 0
    presence, *logits, predicted = _split(outputs)
    loss = functional.binary_cross_entropy_with_logits(presence[..., 0], present.float())
    for i, values in enumerate(logits):
        loss = loss + functional.cross_entropy(values[present], classes[..., i][present])
    return loss + _BOX_WEIGHT * _box_loss(predicted[present], boxes[present])


def dense_scores(outputs: Tensor, classes: Tensor, boxes: Tensor) -> DenseScores:
    """Score one head; the arguments are those of `dense_loss`."""
    present = classes[..., 0] >= 0
    presence, *logits, predicted = _split(outputs)
    rights = [(values.argmax(-1) == classes[..., i])[present].float().mean().item() for i, values in enumerate(logits)]
    return DenseScores(
        ((presence[..., 0] > 0) == present).float().mean().item(),
        dict(zip(ATTRIBUTES, rights, strict=True)),
        (predicted - boxes)[present].abs().mean().item(),
    )


def _split(outputs: Tensor) -> Any:
    return outputs.float().split([1, *(len(values) for values in ATTRIBUTES.values()), 4], dim=-1)


def _box_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Smooth L1 with its knee at 1/100 of the side, plus 0.2 (1 - IoU), of XYXY boxes [N, 4]."""
    smooth = torch.nn.functional.smooth_l1_loss(predicted, truth, beta=0.01)
    low = torch.maximum(predicted[:, :2], truth[:, :2])
    high = torch.minimum(predicted[:, 2:], truth[:, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    union = (predicted[:, 2:] - predicted[:, :2]).clamp(min=0).prod(-1) + (truth[:, 2:] - truth[:, :2]).prod(-1)
    return smooth + 0.2 * (1 - overlap / (union - overlap).clamp(min=1e-6)).mean()
