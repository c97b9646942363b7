"""Exact outlines of masks along the edges of their pixels, and an SVG of them."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wise_edge.drawing.plain import free_colors, line_px
from wise_edge.geometry import Point
from wise_edge.runtimes.results import Findings


def outlines(mask: npt.NDArray[np.bool_]) -> list[list[Point]]:
    """Return the closed outlines of a mask: of its parts and of its holes.

    Pixels that touch only at a corner belong to two outlines. Filled by the even-odd rule, the outlines together are
    the mask, pixel by pixel.

    Args:
        mask: bool [H, W].

    Returns:
        The corners of each outline, XY in pixels, (0, 0) being the upper left corner of the first pixel. Edges are
        horizontal and vertical in turn; the first is horizontal.
    """
    corners, along_rows, along_columns = _corners(mask)
    partner = (_pair(along_rows), _pair(along_columns))
    done = [False] * len(corners)
    found: list[list[Point]] = []
    for first in range(len(corners)):
        outline: list[Point] = []
        at, step = first, 0
        while not done[at]:
            done[at] = True
            outline.append(corners[at])
            at, step = partner[step % 2][at], step + 1
        if outline:
            found.append(outline)
    return found


def to_svg(result: Findings) -> str:
    """Return an SVG of a result's objects, of the picture's size and transparent, to be laid over the picture.

    Each object is a `path` with the id "object-1" and so on, exact to the pixel, filled by the even-odd rule; its title
    is its label, or the query.
    """
    width, height = result.image_size
    colors = free_colors(result.query)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    style = f'fill-rule="evenodd" fill-opacity="0.25" stroke-width="{line_px(width, height)}" stroke-linejoin="round"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<title>{_text(result.query)}</title>",
        f"<g {style}>",
    ]
    for item in result.objects:
        if item.mask.any():
            color = f"#{bytes(colors[(item.number - 1) % len(colors)]).hex()}"
            title = _text(item.label or result.query)
            shape = f'fill="{color}" stroke="{color}" d="{path_data(item.mask)}"'
            lines.append(f'<path id="object-{item.number}" {shape}><title>{title}</title></path>')
    return "\n".join([*lines, "</g>", "</svg>", ""])


def path_data(mask: npt.NDArray[np.bool_]) -> str:
    """Return a mask's outlines as data of an SVG path."""
    return "".join(_draw(outline) for outline in outlines(mask))


def _draw(outline: list[Point]) -> str:
    (x, y), steps = outline[0], []
    for (x1, y1), (x2, y2) in pairwise(outline):
        steps.append(f"h{x2 - x1}" if y1 == y2 else f"v{y2 - y1}")
    return f"M{x} {y}{''.join(steps)}z"


def _text(words: str) -> str:
    """Escape words for XML, which has no place for most control characters."""
    return escape("".join(c if c.isprintable() else " " for c in words))


def _corners(
    mask: npt.NDArray[np.bool_],
) -> tuple[list[Point], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the corners of a mask's edges, and their order along the rows and down the columns.

    In either order, an edge leads from each corner with an even place to the next one. A point where two pixels touch
    is two corners, whose order says which of its edges join.
    """
    padded = np.pad(mask, 1).view(np.int8)
    up_left, up_right, down_left, down_right = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single = (up_left ^ up_right ^ down_left ^ down_right).view(np.bool_)
    touching = (up_left == down_right) & (up_right == down_left) & (up_left != up_right)
    y, x = np.nonzero(single)
    touch_y, touch_x = np.nonzero(touching)
    # The first corner of such a point ends the edge from the left. If the pixels touch like \, it also ends the edge
    # from above: both bound the upper left pixel. If they touch like /, it begins the one down the lower left.
    falling = up_left[touch_y, touch_x].astype(np.intp)
    columns = np.concatenate([x, touch_x, touch_x])
    rows = np.concatenate([y, touch_y, touch_y])
    none, ones = np.zeros(len(x), np.intp), np.ones(len(falling), np.intp)
    across = np.concatenate([none, 1 - ones, ones])
    down = np.concatenate([none, 1 - falling, falling])
    along_rows = np.lexsort((across, columns, rows))
    along_columns = np.lexsort((down, rows, columns))
    return list(zip(columns.tolist(), rows.tolist(), strict=True)), along_rows, along_columns


def _pair(order: npt.NDArray[np.intp]) -> list[int]:
    """Return the corner at the other end of each corner's edge."""
    partner = np.empty_like(order)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    pairs: list[int] = partner.tolist()
    return pairs
