"""The objects of results: seen on an image, remembered through a video, hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point
from wise_edge.rle import compressed_runs

MaskCode = Callable[[npt.NDArray[np.bool_]], Any]


def explain_empty(mask: npt.NDArray[np.bool_] | None) -> str | None:
    """Return why a mask has no pixel; None if it has one, or there is no mask."""
    return None if mask is None or mask.any() else "the segmenter marked no pixel for this box and these points"


@dataclass(frozen=True, eq=False)
class SegmentedObject:
    """An object that a query names, in pixels of the original image.

    Attributes:
        number: 1 for the first that the policy wrote, and so on; an object that is followed keeps its number.
        box: XYXY, half-open.
        points: XY, inside the object; as many as the policy's answers have.
        label: what the policy calls it; None if its answers have no labels.
        mask: bool [H, W].
        score: the segmenter's own estimate of the mask's IoU; None without a pixel in the mask.
    """

    number: int
    box: Box
    points: tuple[Point, ...]
    label: str | None
    mask: npt.NDArray[np.bool_]
    score: float | None

    @property
    def level(self) -> int:
        """The value of its pixels in `Findings.mask_image`: 255 for object 1, 254 for object 2, and so on to 1."""
        return max(1, 256 - self.number)

    @property
    def mask_reason(self) -> str | None:
        """Why the mask has no pixel; None if it has one."""
        return explain_empty(self.mask)

    def to_facts(self) -> dict[str, Any]:
        """Return JSON-ready data without the mask."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "mask"}
        return data | {"mask_px": int(np.count_nonzero(self.mask)), "mask_reason": self.mask_reason}

    def to_dict(self, code: MaskCode = compressed_runs) -> dict[str, Any]:
        """Return JSON-ready data; see `SegmentationResult.to_dict`."""
        return self.to_facts() | {"mask": code(self.mask)}


@dataclass(frozen=True, eq=False)
class RememberedObject(SegmentedObject):
    """An object that the segmenter's memory follows.

    Attributes:
        object_score: logit of whether it is in the frame, above 0.
    """

    object_score: float


@dataclass(frozen=True)
class HiddenObject:
    """An object that is followed and not visible on this frame.

    Attributes:
        number: that it had, and will have when it is visible again.
        box: where it was seen last, XYXY, half-open, in pixels of that frame.
        label: what the policy calls it; None if its answers have no labels.
        object_score: logit of whether it is in the frame; 0 or below, unless its mask is empty.
        hidden_s: how long ago it was seen, by the frames' stamps.
    """

    number: int
    box: Box
    label: str | None
    object_score: float
    hidden_s: float
