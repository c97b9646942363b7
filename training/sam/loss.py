"""The loss of SAM's training, at half the image's size.

Logits are interpolated to that size. The target of a pixel on an edge is the share that the object covers, so the
logits cross zero at the edge. Cross-entropy is averaged over the mask and over a band around the edge, dice keeps small
objects from vanishing, and the predicted IoU is regressed to the actual one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BAND_PX = 5
"""A pixel belongs to the edge if the mask changes within a square of this side around it, px at half size."""


def sam_loss(logits: Tensor, predicted_iou: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Compute the parts of the loss, each a mean over objects.

    Args:
        logits: float32 [N, L, L].
        predicted_iou: float32 [N].
        masks: truth, bool [N, S, S]; S even.

    Returns:
        `bce`, `edge`, `dice` and `iou`, float32 scalars; the loss is their sum.
    """
    target = functional.avg_pool2d(masks[:, None].float(), 2)[:, 0]
    logits = functional.interpolate(logits[:, None], target.shape[1:], mode="bilinear")[:, 0]
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    band = _edge_band(target)
    shares = logits.sigmoid()
    overlap = (shares * target).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (shares.sum((1, 2)) + target.sum((1, 2)) + 1)
    with torch.no_grad():
        iou = mask_ious(logits > 0, target > 0.5)
    return {
        "bce": bce.mean(),
        "edge": ((bce * band).sum((1, 2)) / band.sum((1, 2)).clamp(min=1)).mean(),
        "dice": dice.mean(),
        "iou": functional.mse_loss(predicted_iou, iou),
    }


def multimask_loss(logits: Tensor, predicted_iou: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Compute the parts of the loss of SAM 2's four masks: a single one, and three of which the best is trained.

    Args:
        logits: float32 [N, 4, L, L], the single mask first.
        predicted_iou: float32 [N, 4].
        masks: truth, bool [N, S, S]; S even.

    Returns:
        The parts of `sam_loss`, each a mean of the single mask's and of the best one's; `iou` is of all four masks.
    """
    with torch.no_grad():
        target = functional.avg_pool2d(masks[:, None].float(), 2) > 0.5
        shown = functional.interpolate(logits, target.shape[2:], mode="bilinear") > 0
        ious = torch.stack([mask_ious(mask, target[:, 0]) for mask in shown.unbind(1)], 1)
        best = ious[:, 1:].argmax(1) + 1
    rows = torch.arange(len(best))
    single = sam_loss(logits[:, 0], predicted_iou[:, 0], masks)
    chosen = sam_loss(logits[rows, best], predicted_iou[rows, best], masks)
    parts = {name: (single[name] + chosen[name]) / 2 for name in single}
    return parts | {"iou": functional.mse_loss(predicted_iou, ious)}


def mask_ious(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the IoU of each pair of masks, bool [N, H, W], as float32 [N]; 1 where both are empty."""
    intersection = (predicted & truth).sum((1, 2))
    union = (predicted | truth).sum((1, 2))
    ious: Tensor = (intersection + (union == 0)) / union.clamp(min=1)
    return ious


def _edge_band(target: Tensor) -> Tensor:
    """1 where the target, float32 [N, L, L], changes nearby, else 0."""
    highest = functional.max_pool2d(target, BAND_PX, 1, BAND_PX // 2)
    lowest = -functional.max_pool2d(-target, BAND_PX, 1, BAND_PX // 2)
    band: Tensor = (highest - lowest > 0.01).float()
    return band
