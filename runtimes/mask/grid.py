"""A grid of points over an image and its crops, and which of the masks that they prompt are kept.

Names, defaults and arithmetic are those of segment-anything's `SamAutomaticMaskGenerator`
(https://github.com/facebookresearch/segment-anything/blob/main/segment_anything/automatic_mask_generator.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import MAX_PIXELS, describe, is_count, is_number
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Size

_LEAST = {"points_per_side": 1, "points_per_batch": 1, "crop_n_points_downscale_factor": 1}
_MOST = {
    "points_per_side": 256,
    "points_per_batch": 4096,
    "stability_score_offset": 1_000_000,
    "crop_n_layers": 4,
    "crop_n_points_downscale_factor": 256,
    "min_mask_region_area": MAX_PIXELS,
}
"""Bounds of options; of others 0 and 1."""


@dataclass(frozen=True)
class GridOptions:
    """How masks of everything in an image are made.

    Attributes:
        points_per_side: points along each side of the image.
        points_per_batch: at most so many points are prompted at once, and no more than the decoder takes in one call.
        pred_iou_thresh: masks whose IoU the decoder predicts to be no larger are dropped; 0 drops none.
        stability_score_thresh: masks of a smaller stability score are dropped. The score is the IoU of the mask at two
            thresholds, `stability_score_offset` above and below the usual one.
        stability_score_offset: logits.
        box_nms_thresh: of two masks of a crop whose boxes have a larger IoU, the one of the lower predicted IoU is
            dropped.
        crop_n_layers: layers of crops that are searched, too: 4 crops in the first, 16 in the second, and so on.
        crop_nms_thresh: as `box_nms_thresh`, between crops; masks of smaller crops are preferred.
        crop_overlap_ratio: how far crops of the first layer overlap, as a share of the image's shorter side; those of
            later layers overlap less.
        crop_n_points_downscale_factor: each layer has so many times fewer points along a side than the one before.
        min_mask_region_area: holes and islands of fewer pixels are removed from masks.
        multimask: three masks for each point, else the decoder's single one; None for what the segmenter was trained
            for.

    Raises:
        UsageError: one is out of range.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    multimask: bool | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for field in fields(self):
            if field.name != "multimask":
                _check(field.name, field.type == "int", getattr(self, field.name))
        if self.multimask not in (None, True, False):
            raise UsageError(f"multimask must be True, False or None, got {describe(self.multimask)}")
        if self._points_of(self.crop_n_layers) < 1:
            raise UsageError(
                f"layer {self.crop_n_layers} of crops has no points: {self.points_per_side} points per side are "
                f"divided by {self.crop_n_points_downscale_factor} at each layer; raise points_per_side"
            )

    def points(self, layer: int, size: Size) -> npt.NDArray[np.float64]:
        """Return the points of a crop of a layer and a size (width, height), XY float64 [N, 2], row by row."""
        count = self._points_of(layer)
        places = np.linspace(1 / (2 * count), 1 - 1 / (2 * count), count)
        grid: npt.NDArray[np.float64] = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
        return grid * np.array(size, np.float64)

    def total(self, size: Size) -> int:
        """Return the number of points on an image of a size (width, height) and its crops; raises as `crops`."""
        return sum(self._points_of(layer) ** 2 for layer, _ in self.crops(size))

    def crops(self, size: Size) -> list[tuple[int, Box]]:
        """Return each crop of an image of a size (width, height), itself first: its layer and place, XYXY half-open.

        Raises:
            UsageError: the image has too few pixels for so many crops.
        """
        found: list[tuple[int, Box]] = [(0, (0, 0, *size))]
        for layer in range(1, self.crop_n_layers + 1):
            count = 2**layer
            overlap = int(self.crop_overlap_ratio * min(size) * (2 / count))
            width, height = (math.ceil((overlap * (count - 1) + side) / count) for side in size)
            for column, row in product(range(count), repeat=2):
                left, top = column * (width - overlap), row * (height - overlap)
                box = (left, top, min(left + width, size[0]), min(top + height, size[1]))
                if box[0] >= box[2] or box[1] >= box[3]:
                    raise UsageError(
                        f"the image of {size[0]} x {size[1]} pixels is too small for {self.crop_n_layers} layers of "
                        "crops; lower crop_n_layers"
                    )
                found.append((layer, box))
        return found

    def _points_of(self, layer: int) -> int:
        return int(self.points_per_side / self.crop_n_points_downscale_factor**layer)


def suppress(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.floating], most: float) -> npt.NDArray[np.intp]:
    """Keep the best of boxes that overlap, as `torchvision.ops.nms` does.

    Args:
        boxes: float32 [N, 4], XYXY.
        scores: [N]; of equal ones the first comes first.
        most: largest IoU that two kept boxes may have.

    Returns:
        The places of those that are kept, best first.
    """
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[order, :2]), np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        union = areas[first] + areas[order] - shared
        # A box of one row or column has no area here; two of them do not overlap.
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        order = order[iou.astype(np.float64) <= most]
    return np.array(kept, np.intp)


def _check(name: str, whole: bool, value: Any) -> None:
    least, most = _LEAST.get(name, 0), _MOST.get(name, 1)
    if not (is_count(value, least) if whole else is_number(value) and value >= least) or value > most:
        raise UsageError(f"{name} must be from {least} to {most:,}, got {describe(value)}")
