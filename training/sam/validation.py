"""Validation of a segmenter: masks of scenes, given the true boxes and points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wise_edge.training.sam.data import SamBatch, make_batch
from wise_edge.training.sam.loss import mask_ious
from wise_edge.training.sam.segmenters import answer, input_size

_SCENES_PER_PASS = 8


def validate_sam(sam: nn.Module, split: str, scenes: int) -> dict[str, Any]:
    """Segment every object of the first scenes of a split.

    Args:
        sam: the segmenter, of `segmenters.build_segmenter`; it is left in the mode that it was in.
        split: "validation" or "test".
        scenes: number of scenes.

    Returns:
        `split`, `scenes`, and fractions: under `masks` the mean IoU (`iou`), its tenth percentile (`iou_10th`), the
        share of masks above 0.5 (`iou_50`) and the mean absolute error of the predicted IoU (`score_error`); under
        `by_shape` the mean IoU of each shape.
    """
    training = sam.training
    sam.eval()  # batch norms use what they have counted
    ious: list[float] = []
    scores: list[float] = []
    shapes: list[str] = []
    for start in range(0, scenes, _SCENES_PER_PASS):
        batch = make_batch(split, range(start, min(start + _SCENES_PER_PASS, scenes)), input_size(sam))
        iou, score = segment_batch(sam, batch)
        ious += iou.tolist()
        scores += score.tolist()
        shapes += batch.shapes
    sam.train(training)
    values, names = np.array(ious), np.array(shapes)
    return {
        "split": split,
        "scenes": scenes,
        "masks": summarize_ious(values) | {"score_error": round(float(np.abs(values - np.array(scores)).mean()), 4)},
        "by_shape": {str(name): round(float(values[names == name].mean()), 4) for name in np.unique(names)},
    }


def summarize_ious(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of IoUs (`iou`), their tenth percentile (`iou_10th`) and the share above 0.5 (`iou_50`)."""
    return {
        "iou": round(float(values.mean()), 4),
        "iou_10th": round(float(np.percentile(values, 10)), 4),
        "iou_50": round(float((values > 0.5).mean()), 4),
    }


def segment_batch(sam: nn.Module, batch: SamBatch) -> tuple[Tensor, Tensor]:
    """Return the IoU of each object's mask at the image's size and the predicted IoU, float32 [N] each."""
    with torch.no_grad():
        logits, scores = answer(sam, batch)
        side = batch.masks.shape[-1]
        masks = torch.nn.functional.interpolate(logits[:, None], (side, side), mode="bilinear")[:, 0] > 0
        return mask_ious(masks, torch.from_numpy(batch.masks)), scores
