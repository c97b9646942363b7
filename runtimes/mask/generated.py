"""Masks that no policy asked for: of a grid of points, or of boxes and points that the caller has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_image
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Size
from wise_edge.rle import compress_runs, mask_of_lengths

MASKS_VERSION = 1
"""Of `GeneratedMasks` as JSON."""


@dataclass(frozen=True, eq=False)
class GeneratedMask:
    """One mask in pixels of the image; it is kept as run lengths, of which `mask` is made each time it is asked for.

    Attributes:
        lengths: int32, of background and foreground in turn, down the columns.
        image_size: (width, height) of the image.
        area: px.
        bbox: (x, y, width, height) around the mask's pixels, as pycocotools computes it; 0 without a pixel.
        predicted_iou: the segmenter's own estimate of the mask's IoU.
        stability_score: the mask's IoU at two thresholds, see `GridOptions`; None if it has no pixel at the lower one.
        point_coords: XY of the points that prompted it.
        crop_box: (x, y, width, height) of the part of the image that the segmenter saw.
        box: XYXY of the box that prompted it; None if points alone did.
    """

    lengths: npt.NDArray[np.int32]
    image_size: Size
    area: int
    bbox: Box
    predicted_iou: float
    stability_score: float | None
    point_coords: tuple[tuple[float, float], ...]
    crop_box: Box
    box: Box | None = None

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask, bool [H, W]."""
        width, height = self.image_size
        return mask_of_lengths(self.lengths, (height, width))

    @property
    def segmentation(self) -> dict[str, Any]:
        """The mask as COCO's compressed run lengths, see `wise_edge.rle.compressed_runs`."""
        return compress_runs(self.lengths.tolist(), self.image_size[::-1])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, by the names of segment-anything's records."""
        names = ("area", "bbox", "predicted_iou", "stability_score", "point_coords", "crop_box", "box")
        return {"segmentation": self.segmentation} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class GeneratedMasks:
    """The masks of an image.

    Attributes:
        masks: of a grid, in the order of segment-anything: best predicted IoU first, with crops those of the smallest
            first; of prompts, in their order.
        image_size: (width, height), px.
        made: number of masks that the decoder made of a grid's points.
        dropped: how many of them were dropped, by the option that dropped them.
        best: the largest predicted IoU and stability score that were met, by the names of `GeneratedMask`.
        latency_ms: "preprocess", "mask_encode", "mask_decode" (decoder, upsampling and choosing) and "total".
        backend: what ran.
    """

    masks: tuple[GeneratedMask, ...]
    image_size: Size
    made: int
    dropped: Mapping[str, int]
    best: Mapping[str, float]
    latency_ms: Mapping[str, float]
    backend: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "version": MASKS_VERSION,
            "image_size": self.image_size,
            "masks": [each.to_dict() for each in self.masks],
            "made": self.made,
            "dropped": dict(self.dropped),
            "best": dict(self.best),
            "latency_ms": dict(self.latency_ms),
            "backend": self.backend,
        }

    def to_coco(self, file_name: str | Path = "image") -> dict[str, Any]:
        """Return a COCO document of this image, each mask an annotation of the category "object".

        Args:
            file_name: of the image, as the document's reader finds it.
        """
        from wise_edge.outputs.coco import CocoDocument

        document = CocoDocument()
        document.add_masks(file_name, self)
        return document.to_dict()

    def overlay(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Draw the masks on a copy of the image, HWC uint8 RGB: a fill and a line each, smaller ones above larger ones.

        Raises:
            UsageError: the image has another size.
        """
        from wise_edge.drawing.regions import draw_regions

        check_image(image)
        if (image.shape[1], image.shape[0]) != self.image_size:
            width, height = self.image_size
            raise UsageError(
                f"the masks are of an image of {width} x {height}, got {image.shape[1]} x {image.shape[0]}"
            )
        largest_first = sorted(self.masks, key=lambda each: -each.area)
        return draw_regions(image, (each.mask for each in largest_first))
