"""What every labeled data set gives: examples by place, each with an id that never changes.

Opening a data set reads its annotations and checks them; images and masks are read one at a time, when an example is
asked for. A row that cannot be used is left out and named in `problems`; an image that turns out damaged only when it
is decoded raises a UsageError, which the caller counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Point, interior_points, mask_box
from wise_edge.images import load_image

# Masks up to this side keep every pixel when points are looked for (COCO's largest image); a larger one is thinned
# first, since finding inscribed circles takes time by the cube of the side.
_POINTS_SIDE_PX = 640


@dataclass(frozen=True)
class Example:
    """One query on one image, with its truth.

    Attributes:
        id: unique in its data set and the same at every opening.
        query: the words.
        image: HWC uint8 RGB.
        box: half-open XYXY, px of `image`; that of the mask where there is one; None where the mask is empty.
        points: two pixels (x, y) of `image` inside the target, possibly the same one twice; None where the mask is
            empty.
        mask: bool, H x W of `image`, the target without ignored regions; None where the data set has no masks.
        ignore: bool, H x W of `image`, regions that count neither for nor against; None where there are none.
        kind: kind of query, for figures by kind; None where the data set has no kinds.
    """

    id: str
    query: str
    image: NDArray[np.uint8]
    box: Box | None
    points: tuple[Point, Point] | None
    mask: NDArray[np.bool_] | None
    ignore: NDArray[np.bool_] | None
    kind: str | None


class Dataset(Protocol):
    """Labeled examples of one split.

    Attributes:
        name: what `open_dataset` calls it.
        split: which part of it.
        problems: one line for each row that was left out: where it stands and why.
    """

    name: str
    split: str
    problems: tuple[str, ...]

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the examples, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """Read one example.

        Args:
            index: from 0 to the length less 1.

        Raises:
            IndexError: there is no such example.
            UsageError: the example's image or mask is missing or damaged; the line names the example.
        """


def from_mask(
    name: str,
    query: str,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None = None,
    kind: str | None = None,
) -> Example:
    """Return an example whose box and points are those of its mask."""
    if not mask.any():
        return Example(name, query, image, None, None, mask, ignore, kind)
    return Example(name, query, image, mask_box(mask), mask_points(mask), mask, ignore, kind)


def mask_points(mask: NDArray[np.bool_]) -> tuple[Point, Point]:
    """Return the centers of a mask's two largest inscribed circles, of a thinned copy where the mask is large.

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
    """Tell repeated names apart: the second "a" becomes "a-2", the third "a-3"."""
    seen: dict[str, int] = {}
    taken: dict[str, None] = {}
    for name in names:
        unique = name
        while unique in taken:
            seen[name] = seen.get(name, 1) + 1
            unique = f"{name}-{seen[name]}"
        taken[unique] = None
    return tuple(taken)


def check_rows(rows: Sequence[object], problems: Sequence[str], where: Path) -> None:
    """Refuse a data set of which nothing can be used.

    Raises:
        UsageError: there is no row.
    """
    if not rows:
        reason = f"all {len(problems)} rows are unusable; the first: {problems[0]}" if problems else "it has no rows"
        raise UsageError(f"nothing in {where} can be used: {reason}")


def load_picture(source: Path | bytes, where: str) -> NDArray[np.uint8]:
    """Read an image as HWC uint8 RGB; an error names the example.

    Raises:
        UsageError: the image is missing, damaged or not an image.
    """
    try:
        return load_image(source)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
