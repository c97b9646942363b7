"""The interface of every labeled data set: examples by index, each with an id that never changes.

Opening a data set reads and checks its annotations; images and masks are read one at a time, with their example. An
unusable row is left out and listed in `problems`; an image that proves damaged when it is decoded raises a UsageError,
which the caller counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Point, interior_points, mask_box
from wise_edge.images import load_image
from wise_edge.ranges import shorten

# Points are searched for in every pixel of masks up to this side (COCO's largest image); larger masks are thinned
# first, since finding inscribed circles takes time proportional to the cube of the side.
_POINTS_SIDE_PX = 640
_LONGEST_NAME = 200

Row = TypeVar("Row")


@dataclass(frozen=True)
class ExampleObject:
    """One object that a query means.

    Attributes:
        box: half-open XYXY, px of the image; that of the mask if there is one.
        labeled_points: as `points`, if the data set has them; None for those of the mask.
        mask: bool, H x W of the image; None if the data set has no masks.
    """

    box: Box
    labeled_points: tuple[Point, Point] | None
    mask: NDArray[np.bool_] | None

    @cached_property
    def points(self) -> tuple[Point, Point]:
        """Two pixels (x, y) of the image inside the object, possibly the same pixel twice.

        Those of a mask are found when they are asked for: that takes longer than anything else of a large example, and
        neither figures nor pictures need it.
        """
        if self.labeled_points is not None:
            return self.labeled_points
        assert self.mask is not None  # one of both is there
        return mask_points(self.mask)


@dataclass(frozen=True)
class Example:
    """One query on one image, with its truth.

    Attributes:
        id: unique in its data set and the same at every opening.
        query: what to find.
        image: HWC uint8 RGB.
        objects: what the query means, in no particular order; empty if nothing in the image is meant; None if it is
            not known.
        mask: bool, H x W of `image`, all that is meant, without ignored regions; None if the data set has no masks.
        ignore: bool, H x W of `image`, regions that count neither for nor against; None if there are none.
        kind: kind of query, for figures by kind; None if the data set has no kinds.
    """

    id: str
    query: str
    image: NDArray[np.uint8]
    objects: tuple[ExampleObject, ...] | None
    mask: NDArray[np.bool_] | None
    ignore: NDArray[np.bool_] | None
    kind: str | None

    @property
    def box(self) -> Box | None:
        """Box of the only object that is meant; None if it is not known, or none or several are meant."""
        return self.objects[0].box if self.objects and len(self.objects) == 1 else None

    @property
    def points(self) -> tuple[Point, Point] | None:
        """Points of the only object that is meant; None if `box` is."""
        return self.objects[0].points if self.objects and len(self.objects) == 1 else None


class Dataset(Protocol):
    """Labeled examples of one split.

    Attributes:
        name: its name for `open_dataset`.
        split: name of the split.
        problems: one line for each row that was left out: its place and the reason.
    """

    name: str
    split: str
    problems: tuple[str, ...]

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the examples, in order."""

    def __len__(self) -> int: ...

    def sources(self, count: int) -> list[Path]:
        """Return the files that the first `count` examples are read from, annotations included, in a fixed order."""

    def __getitem__(self, index: int) -> Example:
        """Read one example.

        Args:
            index: from 0 to the length less 1.

        Raises:
            IndexError: the index is out of range.
            UsageError: the example's image or mask is missing or damaged; the message names the example.
        """


class RowDataset(Generic[Row]):
    """What data sets share that keep one row for each example; a subclass reads the example of a row.

    Args:
        name: of the data set.
        split: of the data set.
        where: what the rows were read from, for messages.
        rows: the usable rows.
        ids: of the rows, in order.
        problems: one line for each row that was left out.
        files: what all rows were read from.

    Raises:
        UsageError: there is no usable row.
    """

    def __init__(
        self,
        name: str,
        split: str,
        where: Path,
        rows: Sequence[Row],
        ids: Iterable[str],
        problems: Sequence[str],
        files: Sequence[Path] = (),
    ) -> None:
        if not rows:
            unusable = f"all {len(problems)} rows are unusable; the first: {problems[0]}" if problems else ""
            raise UsageError(f"{where} has no usable rows: {unusable or 'it has no rows'}")
        self.name = name
        self.split = split
        self.ids: Sequence[str] = tuple(ids)
        self.problems = tuple(problems)
        self._rows = rows
        self._files = files

    def __len__(self) -> int:
        return len(self._rows)

    def sources(self, count: int) -> list[Path]:
        """Return the files that the first `count` examples are read from, annotations included, in a fixed order."""
        return list(
            dict.fromkeys([*self._files, *(file for row in self._rows[:count] for file in self._files_of(row))])
        )

    def _files_of(self, row: Row) -> Sequence[Path]:
        """Return the files of one row alone."""
        return ()


def from_mask(
    name: str,
    query: str,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None = None,
    kind: str | None = None,
) -> Example:
    """Return an example of one object, the mask's, or of none if the mask is empty."""
    return Example(name, query, image, masked_objects([mask]), mask, ignore, kind)


def masked_objects(masks: Iterable[NDArray[np.bool_]]) -> tuple[ExampleObject, ...]:
    """Return an object for each mask that has a pixel, with its box."""
    return tuple(ExampleObject(mask_box(mask), None, mask) for mask in masks if mask.any())


def count_kind(objects: int) -> str:
    """Return the kind of a query that means this number of objects: "none", "one" or "several"."""
    return ("none", "one")[objects] if objects < 2 else "several"


def mask_points(mask: NDArray[np.bool_]) -> tuple[Point, Point]:
    """Return the centers of a mask's two largest inscribed circles; a large mask is thinned first.

    Args:
        mask: bool, H x W, at least one pixel set.
    """
    x1, y1, x2, y2 = mask_box(mask)
    step = ceil(max(x2 - x1, y2 - y1) / _POINTS_SIDE_PX)
    thinned = mask[y1:y2:step, x1:x2:step]
    if not thinned.any():
        return interior_points(mask)
    (ax, ay), (bx, by) = interior_points(thinned)
    return (x1 + step * ax, y1 + step * ay), (x1 + step * bx, y1 + step * by)


def make_unique(names: Iterable[str]) -> tuple[str, ...]:
    """Distinguish repeated names: the second "a" becomes "a-2", the third "a-3"."""
    seen: dict[str, int] = {}
    taken: dict[str, None] = {}
    for name in names:
        unique = name
        while unique in taken:
            seen[name] = seen.get(name, 1) + 1
            unique = f"{name}-{seen[name]}"
        taken[unique] = None
    return tuple(taken)


def check_name(name: str) -> None:
    """Raise ValueError for an id that a line of a log or a message cannot show."""
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"its id {shorten(name)} is not 1 to {_LONGEST_NAME} printable characters")


def read_image(source: Path | bytes, where: str) -> NDArray[np.uint8]:
    """Read an image as HWC uint8 RGB; errors name the example.

    Raises:
        UsageError: the image is missing, damaged or not an image.
    """
    try:
        return load_image(source)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
