"""Masks for pictures without labels: the teacher's, for points and for the boxes of what it finds there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wise_edge.training.sam.forward import decode_objects
from wise_edge.training.sam.loss import mask_ious

_LEAST_PIXELS = 4
"""Masks of fewer low-resolution pixels are left out: their boxes say nothing."""


@dataclass(frozen=True)
class Targets:
    """N prompts and what the teacher's decoder makes of them."""

    owners: Tensor
    """int64 [N], the picture of each."""
    tokens: Tensor
    """float32 [N, tokens, C], embedded box and point."""
    logits: Tensor
    """float32 [N, L, L]."""
    ious: Tensor
    """float32 [N], as the teacher predicts them."""


def draw_points(sizes: np.ndarray[Any, Any], count: int, rng: np.random.Generator) -> Tensor:
    """Draw points within pictures of (width, height) `sizes` [B, 2], px; returns float32 [B * count, 1, 2]."""
    shares = rng.random((len(sizes), count, 2))
    return torch.from_numpy((shares * sizes[:, None]).reshape(-1, 1, 2).astype(np.float32))


def grid_points(sizes: np.ndarray[Any, Any], side: int) -> Tensor:
    """Return `side` x `side` even points of each picture; arguments and result as of `draw_points`."""
    shares = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) / side
    return torch.from_numpy((shares * sizes[:, None]).reshape(-1, 1, 2).astype(np.float32))


def make_targets(teacher: Any, embeddings: Tensor, points: Tensor) -> Targets:
    """Segment what is at each point, and then segment it again by the box of that mask and the point.

    Args:
        teacher: has SAM's decoder.
        embeddings: the teacher's, float32 [B, C, G, G].
        points: float32 [B * count, 1, 2], those of each picture together, px of the square of prompts.
    """
    count = len(points) // len(embeddings)
    owners = torch.arange(len(embeddings), device=embeddings.device).repeat_interleave(count)
    points = points.to(embeddings.device)
    labels = torch.ones(points.shape[:2], device=embeddings.device)
    with torch.no_grad():
        tokens = teacher.prompt_encoder((points, labels), None, None)[0]
        masks = decode_objects(teacher, embeddings, owners, tokens)[0] > 0
        kept = masks.sum((1, 2)) >= _LEAST_PIXELS
        owners, points, labels = owners[kept], points[kept], labels[kept]
        boxes = _find_boxes(masks[kept]) * (teacher.prompt_encoder.input_image_size[0] / masks.shape[-1])
        tokens = teacher.prompt_encoder((points, labels), boxes, None)[0]
        return Targets(owners, tokens, *decode_objects(teacher, embeddings, owners, tokens))


def mask_loss(student: Any, embeddings: Tensor, targets: Targets) -> Tensor:
    """Return how much the student's masks and predicted IoUs differ from the teacher's, a scalar."""
    if len(targets.owners) == 0:
        return embeddings.sum() * 0
    logits, ious = decode_objects(student, embeddings, targets.owners, targets.tokens)
    shares, wanted = logits.sigmoid(), targets.logits.sigmoid()
    overlap = (shares * wanted).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (shares.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted)
    return entropy + dice.mean() + functional.mse_loss(ious, targets.ious)


def compare_masks(student: Any, embeddings: Tensor, targets: Targets) -> list[float]:
    """Return the IoU of each of the student's masks with the teacher's."""
    if len(targets.owners) == 0:
        return []
    logits = decode_objects(student, embeddings, targets.owners, targets.tokens)[0]
    found: list[float] = mask_ious(logits > 0, targets.logits > 0).tolist()
    return found


def _find_boxes(masks: Tensor) -> Tensor:
    """Return the half-open boxes, XYXY, of masks, bool [N, L, L], none of them empty, as float32 [N, 4]."""
    edges = []
    for axis in (1, 2):  # columns, then rows
        shown = masks.any(axis).int()
        edges.append((shown.argmax(1), masks.shape[-1] - shown.flip(1).argmax(1)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1).float()
