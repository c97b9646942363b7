"""The frame that the numbers of an answer are given in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from wise_edge.geometry import Box, Point, Size
from wise_edge.ranges import Checked, OneOf

PIXELS, PER_MILLE = "pixels", "per-mille"
XY, YX = "xy", "yx"
_THOUSAND = 1000


@dataclass(frozen=True)
class AnswerFrame:
    """A coordinate frame that shows a whole picture, stretched to a size of its own.

    Attributes:
        size: width and height; box edges go from 0 to these, points to one less.
        order: `XY` or `YX`, the order in which a policy writes coordinates. In Python they are always XY.
    """

    size: Size
    order: str = XY

    @property
    def largest(self) -> int:
        """The largest number of an answer."""
        return max(self.size)

    @property
    def limits(self) -> tuple[int, int]:
        """The largest numbers of the first and of the second coordinate, as a policy writes them."""
        width, height = self.size
        return (width, height) if self.order == XY else (height, width)

    def write_box(self, box: Box) -> list[int]:
        """Return a box's numbers as a policy writes them."""
        x1, y1, x2, y2 = box
        return [x1, y1, x2, y2] if self.order == XY else [y1, x1, y2, x2]

    def write_point(self, point: Point) -> list[int]:
        """Return a point's numbers as a policy writes them."""
        x, y = point
        return [x, y] if self.order == XY else [y, x]

    def read_box(self, numbers: Sequence[int]) -> Box:
        """Return the box that four written numbers mean; its corners may be reversed or outside."""
        a, b, c, d = numbers
        return (a, b, c, d) if self.order == XY else (b, a, d, c)

    def read_point(self, numbers: Sequence[int]) -> Point:
        """Return the point that two written numbers mean; it may be outside."""
        a, b = numbers
        return (a, b) if self.order == XY else (b, a)


@dataclass(frozen=True)
class Coordinates(Checked):
    """How a policy writes coordinates.

    Attributes:
        unit: `PIXELS` of the picture as the policy sees it, resized, or `PER_MILLE`, 0 to 1000 of each side.
        order: `XY`, or `YX` if a policy writes rows before columns.
    """

    unit: Annotated[str, OneOf((PIXELS, PER_MILLE))] = PIXELS
    order: Annotated[str, OneOf((XY, YX))] = XY

    def __str__(self) -> str:
        """Say what the numbers count."""
        unit = "pixels of the resized image" if self.unit == PIXELS else "0 to 1000 of each side"
        return unit if self.order == XY else f"{unit}, rows before columns"

    def frame(self, picture: Size) -> AnswerFrame:
        """Return the frame of answers on a picture of a width and height in px, as the policy sees it."""
        return AnswerFrame(picture if self.unit == PIXELS else (_THOUSAND, _THOUSAND), self.order)


PIXELS_XY = Coordinates()
