"""Following an object from frame to frame with the segmenter, between the policy's groundings."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point, box_iou, mask_box

if TYPE_CHECKING:
    from wise_edge.runtimes.session import Session
    from wise_edge.runtimes.tracking import Grounding, Stamped

_PATH = 256  # boxes of the latest frames that a late grounding is compared with
_AGREES = 0.5  # IoU of a followed and a grounded box on one frame


@dataclass(frozen=True, eq=False)
class Followed:
    """Where an object is on one frame, in pixels of the frame.

    Attributes:
        box: XYXY, half-open; None if the policy's last answer names nothing, or nothing is there any more.
        points: inside the object.
        mask: bool [H, W].
        score: the segmenter's own estimate of the mask's IoU; None without a pixel in the mask.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: npt.NDArray[np.bool_] | None = None
    score: float | None = None


class Follower:
    """Makes masks between groundings.

    Args:
        session: has the segmenter.

    Attributes:
        grounding: the policy's last answer; None before the first.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._path: deque[tuple[float, Box]] = deque(maxlen=_PATH)
        self._box: Box | None = None
        self._points: tuple[Point, ...] = ()
        self.grounding: Grounding | None = None

    def reground(self, grounding: Grounding) -> None:
        """Continue from the policy's answer on an earlier frame, moved by what was followed since if they agree."""
        self.grounding = grounding
        box, points = grounding.result.box, grounding.result.points or ()
        moved = (0, 0)
        if box is not None and self._box is not None and self._path:
            then = min(self._path, key=lambda entry: abs(entry[0] - grounding.frame.stamp_s))[1]
            if box_iou(then, box) > _AGREES:
                moved = _shift(then, self._box)
        self._box = None if box is None else _move_box(box, moved)
        self._points = tuple(_move(point, moved) for point in points)

    def follow(self, frame: Stamped) -> Followed:
        """Return where the object is on a frame; the grounding's own frame needs no segmenter."""
        if self.grounding is not None and self.grounding.frame is frame:
            result = self.grounding.result
            found = Followed(result.box, result.points or (), result.mask, result.score)
        elif self._box is not None:
            found = self._find(frame, self._box)
        else:
            found = Followed()
        if found.box is not None:
            self._box, self._points = found.box, found.points
            self._path.append((frame.stamp_s, found.box))
        return found

    def _find(self, frame: Stamped, around: Box) -> Followed:
        output = self._session.find_mask(frame.image, around, self._points)
        if not output.mask.any():  # the next frame is searched in the same place
            return Followed(None, (), output.mask)
        box = mask_box(output.mask)
        by = _shift(around, box)
        points = tuple(_nearest(output.mask, _move(point, by)) for point in self._points)
        return Followed(box, points, output.mask, output.score)


def _shift(start: Box, end: Box) -> tuple[int, int]:
    """Return how far a box's center moved, in pixels."""
    return (end[0] + end[2] - start[0] - start[2]) // 2, (end[1] + end[3] - start[1] - start[3]) // 2


def _move(point: Point, by: tuple[int, int]) -> Point:
    return point[0] + by[0], point[1] + by[1]


def _move_box(box: Box, by: tuple[int, int]) -> Box:
    return box[0] + by[0], box[1] + by[1], box[2] + by[0], box[3] + by[1]


def _nearest(mask: npt.NDArray[np.bool_], point: Point) -> Point:
    """Return a point if it is inside the mask, else the nearest pixel of the mask."""
    x, y = point
    if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
        return point  # the usual case; searching every pixel of the mask takes milliseconds
    rows, columns = np.nonzero(mask)
    place = int(((columns - x) ** 2 + (rows - y) ** 2).argmin())
    return int(columns[place]), int(rows[place])
