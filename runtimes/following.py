"""Following objects from frame to frame with the segmenter, between the policy's groundings."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point, box_iou, clip_box, mask_box
from wise_edge.runtimes.base import MaskOutput, MaskPrompt
from wise_edge.runtimes.objects import HiddenObject, SegmentedObject

if TYPE_CHECKING:
    from wise_edge.runtimes.grounding import Grounding
    from wise_edge.runtimes.session import Session
    from wise_edge.runtimes.tracking import Stamped

_PATH = 256  # latest frames, with whose boxes a late grounding is compared
_AGREES = 0.5  # IoU of a followed and a grounded box on one frame


@dataclass(frozen=True)
class Pace:
    """How long the policy is left alone after a frame that it was asked about, in seconds of the frames' stamps.

    Attributes:
        every_s: while all is well.
        doubt_s: if an object was lost or has a poor mask since then, which only a memory tells.
        nothing_s: while nothing is followed.
    """

    every_s: float
    doubt_s: float
    nothing_s: float


@dataclass(frozen=True)
class Track:
    """Where an object was last; an object that is lost is searched there.

    Attributes:
        box: around its mask, XYXY.
        points: inside it.
        label: what the policy calls it.
    """

    box: Box
    points: tuple[Point, ...]
    label: str | None

    @classmethod
    def of(cls, item: SegmentedObject) -> Track:
        """Return where an object is."""
        return cls(item.box, item.points, item.label)

    def moved(self, by: tuple[int, int]) -> Track:
        """Return it so many columns to the right and rows further down."""
        return replace(self, box=_move_box(self.box, by), points=tuple(_move(point, by) for point in self.points))


class Follower:
    """Makes masks between groundings, of all objects of the last answer at once.

    Args:
        session: has the segmenter.

    Attributes:
        grounding: the policy's last answer; None before the first.
        hidden: None; only a memory knows what is hidden.
    """

    hidden: tuple[HiddenObject, ...] | None = None

    def __init__(self, session: Session) -> None:
        self._session = session
        self._path: deque[tuple[float, Mapping[int, Box]]] = deque(maxlen=_PATH)
        self._tracks: dict[int, Track] = {}
        self._grounded: tuple[SegmentedObject, ...] = ()
        self.grounding: Grounding | None = None

    def wants_grounding(self, frame: Stamped, pace: Pace) -> bool:
        """Whether to ask the policy about a frame."""
        return self.grounding is None or not 0 <= frame.stamp_s - self.grounding.frame.stamp_s < pace.every_s

    def reground(self, grounding: Grounding) -> None:
        """Continue from the policy's answer on an earlier frame.

        An object that agrees with one that was followed keeps its number, and is moved by what it was followed since.
        """
        self.grounding = grounding
        then: dict[int, Box] = {}
        if self._path:
            nearest = min(self._path, key=lambda entry: abs(entry[0] - grounding.frame.stamp_s))[1]
            then = {number: box for number, box in nearest.items() if number in self._tracks}
        known: dict[int, SegmentedObject] = {}
        shifts: dict[int, tuple[int, int]] = {}
        fresh: list[SegmentedObject] = []
        for item in grounding.result.objects:
            best = max(then, key=lambda number: box_iou(then[number], item.box), default=0)
            if best and box_iou(then[best], item.box) > _AGREES:
                known[best] = item
                shifts[best] = _shift(then.pop(best), self._tracks[best].box)
            else:
                fresh.append(item)
        free = (number for number in count(1) if number not in known)
        numbered = sorted((known | dict(zip(free, fresh, strict=False))).items())
        self._grounded = tuple(replace(item, number=number) for number, item in numbered)
        self._tracks = {number: Track.of(item).moved(shifts.get(number, (0, 0))) for number, item in numbered}

    def follow(self, frame: Stamped) -> tuple[SegmentedObject, ...]:
        """Return the objects that are on a frame; the grounding's own frame needs no segmenter."""
        own = self.grounding is not None and self.grounding.frame is frame
        found = self._grounded if own else self._find(frame)
        self._tracks |= {item.number: Track.of(item) for item in found}
        if found:
            self._path.append((frame.stamp_s, {item.number: item.box for item in found}))
        return found

    def _find(self, frame: Stamped) -> tuple[SegmentedObject, ...]:
        if not self._tracks:
            return ()
        size = (frame.image.shape[1], frame.image.shape[0])
        prompts = [MaskPrompt(clip_box(track.box, size), track.points) for track in self._tracks.values()]
        outputs = zip(self._tracks.items(), self._session.find_masks(frame.image, prompts), strict=True)
        return tuple(see(number, track, output) for (number, track), output in outputs if output.mask.any())


def see(number: int, track: Track, output: MaskOutput) -> SegmentedObject:
    """Return an object whose mask has a pixel, with the points moved along from where it was."""
    box = mask_box(output.mask)
    by = _shift(track.box, box)
    points = tuple(_nearest(output.mask, _move(point, by)) for point in track.points)
    return SegmentedObject(number, box, points, track.label, output.mask, output.mask_score)


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
        return point
    ends = mask.copy()  # in each row the nearest pixel is in the point's column, or an end of a run
    ends[:, 1:-1] &= ~(mask[:, :-2] & mask[:, 2:])
    if 0 <= x < mask.shape[1]:
        ends[:, x] = mask[:, x]
    rows, columns = np.nonzero(ends)
    place = int(((columns - x) ** 2 + (rows - y) ** 2).argmin())
    return int(columns[place]), int(rows[place])
