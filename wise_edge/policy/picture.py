"""How a picture is resized for a policy: stretched to a square, or with its aspect kept within a budget of pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from wise_edge.arguments import MAX_ASPECT
from wise_edge.errors import UsageError
from wise_edge.geometry import Size
from wise_edge.ranges import Checked, OneOf, Range, Side, shorten

SQUARE, ASPECT = "square", "aspect"
Grid = tuple[int, int]
"""Columns and rows of an image's tokens."""

_Pixels = Annotated[int, Range(1, 2**28)]
_Cells = Annotated[int, Range(1, 65_536)]
_MOST_GRIDS = 100
MOST_BUDGET = 4096**2
"""Pixels of the largest picture; a square has a side of at most 4096."""
_USUAL_ASPECTS = ((1, 1), (4, 3), (3, 4), (16, 9), (9, 16))


@dataclass(frozen=True)
class PictureGeometry(Checked):
    """How pictures are resized for a policy.

    Attributes:
        kind: `SQUARE`, stretched, as WISE's policies are trained; or `ASPECT`, as stock Qwen-VL checkpoints expect.
        side: of the square in px; None for `ASPECT`.
        least_pixels: for `ASPECT`, a smaller picture is enlarged; None for `SQUARE`.
        most_pixels: for `ASPECT`, a larger picture is reduced; likewise.
        grids: for `ASPECT`, the only grids of image tokens that the graphs take, as (columns, rows); empty if any
            grid will do.
    """

    kind: Annotated[str, OneOf((SQUARE, ASPECT))]
    side: Side | None = None
    least_pixels: _Pixels | None = None
    most_pixels: _Pixels | None = None
    grids: Annotated[tuple[tuple[_Cells, _Cells], ...], Range(0, _MOST_GRIDS)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.side is None) is (self.kind == SQUARE):
            raise ValueError(f"side: {'missing' if self.side is None else 'only a square has one'}")
        budget = self.least_pixels, self.most_pixels
        if any((pixels is None) is (self.kind == ASPECT) for pixels in budget):
            raise ValueError(
                "least_pixels, most_pixels: they belong to pictures that keep their aspect, and only there"
            )
        if self.least_pixels and self.most_pixels and self.least_pixels > self.most_pixels:
            raise ValueError(f"least_pixels: {self.least_pixels} is above most_pixels, {self.most_pixels}")

    @classmethod
    def square(cls, side: int) -> PictureGeometry:
        """Return the geometry of a square of a side in px."""
        return cls(SQUARE, side)

    def __str__(self) -> str:
        """Say how images are resized."""
        if self.side is not None:
            return f"images stretched to {self.side} x {self.side} px"
        if self.grids:
            return f"images of {name_grids(self.grids)} tokens, whichever is nearest in aspect"
        return f"images of {self.least_pixels:,} to {self.most_pixels:,} px that keep their aspect"

    def size(self, original: Size, unit: int) -> Size:
        """Return the width and height in px that a picture is resized to.

        Args:
            original: width and height of the picture, px.
            unit: side of an image token, px.
        """
        if self.side is not None:
            return self.side, self.side
        if self.grids:
            columns, rows = min(self.grids, key=lambda grid: _aspect_distance(grid, original))
            return columns * unit, rows * unit
        assert self.least_pixels is not None and self.most_pixels is not None
        return fit_pixels(original, unit, self.least_pixels, self.most_pixels)

    def grid_sizes(self, unit: int) -> tuple[Grid, ...]:
        """Return the grids of image tokens of a side in px that pictures may have; empty if there is no list."""
        return self.grids if self.side is None else ((self.side // unit, self.side // unit),)

    def most_tokens(self, unit: int) -> int:
        """Return how many image tokens of a side in px the largest picture has.

        A strip may exceed the budget, since it is at least a token wide; a small one, since it is enlarged to whole
        tokens.
        """
        if grids := self.grid_sizes(unit):
            return max(columns * rows for columns, rows in grids)
        assert self.least_pixels is not None and self.most_pixels is not None
        least, most = (pixels / unit**2 for pixels in (self.least_pixels, self.most_pixels))
        enlarged = least + 1 + math.sqrt(least) * (math.sqrt(MAX_ASPECT) + 1 / math.sqrt(MAX_ASPECT))
        return int(max(most, math.sqrt(MAX_ASPECT * most), enlarged))

    def with_budget(self, pixels: int, unit: int) -> PictureGeometry:
        """Return the geometry of the same kind whose pictures have at most a number of pixels.

        Args:
            pixels: the most.
            unit: side of an image token, px.

        Raises:
            UsageError: not one image token fits, or none of the grids; or they are too many.
        """
        if pixels < unit**2:
            raise UsageError(f"{pixels} pixels hold no image token of {unit} x {unit}; allow {unit**2} or more")
        if pixels > MOST_BUDGET:
            raise UsageError(f"{shorten(pixels)} pixels are too many; allow at most {MOST_BUDGET}")
        if self.least_pixels is None:
            return replace(self, side=math.isqrt(pixels) // unit * unit)
        kept = tuple(grid for grid in self.grids if grid[0] * grid[1] * unit**2 <= pixels)
        if self.grids and not kept:
            raise UsageError(
                f"{pixels} pixels hold none of the grids that the graphs have, {name_grids(self.grids)} tokens of "
                f"{unit} x {unit} px; allow more, or export others with --grids"
            )
        return replace(self, least_pixels=min(self.least_pixels, pixels), most_pixels=pixels, grids=kept)

    def usual_grids(self, unit: int) -> tuple[Grid, ...]:
        """Return the largest grids within the budget for usual aspects: 1:1, 4:3 and 16:9, lying and upright."""
        assert self.most_pixels is not None
        tokens = self.most_pixels / unit**2
        sides = ((tokens * width / height, tokens * height / width) for width, height in _USUAL_ASPECTS)
        # The square root of a square may lie just below it.
        grids = (tuple(max(1, math.floor(math.sqrt(side) + 1e-9)) for side in pair) for pair in sides)
        return tuple(dict.fromkeys((columns, rows) for columns, rows in grids))


def name_grids(grids: Iterable[Grid]) -> str:
    """Return grids as text: "30x30, 34x25"."""
    return ", ".join(f"{columns}x{rows}" for columns, rows in grids)


def fit_pixels(original: Size, unit: int, least: int, most: int) -> Size:
    """Return the size of a picture in whole image tokens, its aspect kept as far as they allow.

    The numbers are those of transformers' `smart_resize` for Qwen2-VL
    (https://github.com/huggingface/transformers, models/qwen2_vl/image_processing_qwen2_vl.py).

    Args:
        original: width and height, px.
        unit: side of an image token, px.
        least: pixels of the smallest result.
        most: pixels of the largest result.
    """
    width, height = original
    columns, rows = round(width / unit), round(height / unit)
    if columns * rows * unit**2 > most:
        shrink = math.sqrt(width * height / most)
        columns, rows = (max(1, math.floor(side / shrink / unit)) for side in original)
    elif columns * rows * unit**2 < least:
        enlarge = math.sqrt(least / (width * height))
        columns, rows = (math.ceil(side * enlarge / unit) for side in original)
    return columns * unit, rows * unit


def _aspect_distance(grid: Grid, original: Size) -> tuple[float, int]:
    """Return how far a grid's aspect is from a picture's; of two as far, more tokens are nearer."""
    columns, rows = grid
    return abs(math.log(columns / rows * original[1] / original[0])), -columns * rows
