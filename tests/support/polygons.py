"""Trace a mask as polygons.

Vertices are centers of the mask's own outermost pixels, so a polygon that is painted with its outline gives the mask
back pixel by pixel. A part with a hole has no such polygon; it is cut in two through the hole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wise_edge.geometry import Point

# Clockwise as seen on an image, whose rows run downwards: right, lower right, down ...
_STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


def trace_polygons(mask: NDArray[np.bool_]) -> Iterator[tuple[Point, ...]]:
    """Yield polygons that together cover a mask exactly.

    Args:
        mask: bool, H x W. An empty one has no polygons.

    Yields:
        At least three (x, y) pixels each, clockwise; the last of a part of one or two pixels is repeated.
    """
    rest = mask.copy()
    while rest.any():
        polygon = _vertices(_trace(rest))
        filled = _fill(polygon, mask.shape)
        holes = filled & ~rest
        if holes.any():
            cut = int(holes.argmax()) % mask.shape[1]
            left = np.arange(mask.shape[1]) < cut
            yield from trace_polygons(rest & left)
            yield from trace_polygons(rest & ~left)
            return
        yield polygon
        rest &= ~filled


def _trace(mask: NDArray[np.bool_]) -> list[Point]:
    """Walk clockwise round the part that holds the first pixel, neighbors by corners included.

    Moore's neighbor tracing; it ends when the first step would be taken again.
    """
    padded = np.pad(mask, 1).tolist()
    row, column = divmod(int(mask.argmax()), mask.shape[1])
    first = x, y = column + 1, row + 1  # in the padded mask
    walk: list[Point] = []
    first_step, look = -1, 0  # nothing of the mask lies to the left or above
    while True:
        step = next((s % 8 for s in range(look, look + 8) if padded[y + _STEPS[s % 8][1]][x + _STEPS[s % 8][0]]), -1)
        if step < 0:
            return [(column, row)]
        if (x, y) == first and step == first_step:
            return walk
        if not walk:
            first_step = step
        walk.append((x - 1, y - 1))
        x, y = x + _STEPS[step][0], y + _STEPS[step][1]
        # Go on from the last pixel that was seen empty before this one was found.
        look = step + 5 if step % 2 else step + 6


def _fill(polygon: tuple[Point, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
    return np.asarray(canvas)


def _vertices(outline: list[Point]) -> tuple[Point, ...]:
    """Leave out points that lie on the straight way between their neighbors."""
    around = zip(outline[-1:] + outline[:-1], outline, outline[1:] + outline[:1], strict=True)
    corners = [b for a, b, c in around if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])]
    corners = corners or outline
    return (*corners, *corners[-1:] * (3 - len(corners)))
