"""Draws objects on an image in its own size and colors: a contour and a light fill each, fast enough for a video.

A color that the query asks for is not used, so that no object owes its red to the drawing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wise_edge.drawing.overlay import COLORS, SHADOW, WHITE, Color, DrawnObject, badge_text, draw_badge
from wise_edge.geometry import Size, mask_box

_TINTED = 10  # parts of a pixel, one of which is tinted
_FULL = 64  # share of a pixel that a contour covers
COLOR_NAMES = (
    "cyan turquoise teal aqua azure blue green",
    "amber yellow gold golden orange beige tan",
    "pink magenta fuchsia rose red crimson scarlet maroon",
    "lime green olive yellow",
    "purple violet lilac lavender indigo mauve",
    "orange red brown copper bronze",
    "blue navy indigo azure",
    "white silver gray grey cream ivory beige",
)
"""Words for each of `COLORS`, and for the colors that look like it."""


def free_colors(query: str) -> tuple[Color, ...]:
    """Return those of `COLORS` that the words of a query do not name; all of them if it names each."""
    words = {word.removesuffix("ish") for word in re.findall("[a-z]+", query.lower())}
    return (
        tuple(color for color, names in zip(COLORS, COLOR_NAMES, strict=True) if words.isdisjoint(names.split()))
        or COLORS
    )


def line_px(width: int, height: int) -> int:
    """Return the width of a contour on an image of a size in pixels."""
    return max(2, round(max(width, height) / 480))


def draw_plain(image: npt.NDArray[np.uint8], objects: Sequence[DrawnObject], query: str = "") -> npt.NDArray[np.uint8]:
    """Draw objects on a copy of an image.

    Args:
        image: HWC uint8 RGB.
        objects: what to draw; a part that is None or empty is left out. A label, if only "", draws the number of one of
            several objects, too.
        query: its colors are not used.

    Returns:
        HWC uint8 RGB of the same size.
    """
    drawn: npt.NDArray[np.uint8] = image.copy()
    height, width, _ = image.shape
    stroke, colors = line_px(width, height), free_colors(query)
    numbers = [item.number or place for place, item in enumerate(objects, start=1)]
    shown = [(item, colors[(number - 1) % len(colors)]) for item, number in zip(objects, numbers, strict=True)]
    areas = [(_Area(item.mask, stroke), color) for item, color in shown if item.mask is not None and item.mask.any()]
    for area, color in areas:
        area.fill(drawn, color)
    for area, color in areas:  # once more, since an object may cover the line of another
        area.line(drawn, color)
    if all(item.box is None and not item.points and item.label is None for item in objects):
        return drawn
    canvas = Image.fromarray(drawn)
    draw = ImageDraw.Draw(canvas)
    for item, color in shown:
        _mark(draw, item, color, stroke)
    for number, (item, color) in zip(numbers, shown, strict=True):
        _name(draw, item, number if len(objects) > 1 else None, color, stroke, (width, height))
    return np.array(canvas)


class _Area:
    """The part of an image where a mask and its contour lie.

    Args:
        mask: bool [H, W] of the image, with a pixel.
        stroke: width of the contour, px.
    """

    def __init__(self, mask: npt.NDArray[np.bool_], stroke: int) -> None:
        height, width = mask.shape
        margin = stroke + 3  # two rims, and what smoothing adds
        x1, y1, x2, y2 = mask_box(mask)
        self._rows = slice(max(0, y1 - margin), min(height, y2 + margin))
        self._columns = slice(max(0, x1 - margin), min(width, x2 + margin))
        self._mask, self._stroke = mask[self._rows, self._columns], stroke

    def fill(self, drawn: npt.NDArray[np.uint8], color: Color) -> None:
        """Tint the mask."""
        region = drawn[self._rows, self._columns]
        height, width, _ = region.shape
        levels = region.reshape(height, width * 3)  # a copy; rows of bytes are what numpy computes fast
        tint = np.tile(np.array(color, np.uint8) // _TINTED, width)
        levels -= (levels // _TINTED - tint) * np.repeat(self._mask, 3, axis=1)
        region[:] = levels.reshape(region.shape)

    def line(self, drawn: npt.NDArray[np.uint8], color: Color) -> None:
        """Line the outer side of the mask's edge, with a dark rim on both sides: an object may have the color, too."""
        region = drawn[self._rows, self._columns]
        inner = _grow(self._mask, 1)
        outer = _grow(inner, self._stroke)
        _blend(region, _soften(_grow(outer, 1) & ~self._mask), SHADOW)
        _blend(region, _soften(outer & ~inner), color)


def _grow(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Return a mask with all pixels that an octagon of a radius around its pixels covers."""
    grown = mask
    for step in range(reach):
        before, grown = grown, grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        if step % 2:  # a square, of which the rows above and below are widened, too; else a cross
            before = grown.copy()
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def _soften(band: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return how much of each pixel a band covers if its steps are smoothed, 0 to `_FULL`."""
    share = band.view(np.uint8)
    for low, high in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        weighted = share * np.uint8(6)
        weighted[low] += share[high]
        weighted[high] += share[low]
        share = weighted
    return share


def _blend(region: npt.NDArray[np.uint8], share: npt.NDArray[np.uint8], color: Color) -> None:
    """Blend a color into the few pixels of a region that have a share of it, 0 to `_FULL`."""
    rows, columns = np.divmod(np.flatnonzero(share.view(np.bool_)), share.shape[1])
    part = share[rows, columns, None].astype(np.uint16)
    mixed = region[rows, columns] * (_FULL - part) + np.array(color, np.uint16) * part
    region[rows, columns] = mixed // _FULL


def _mark(draw: ImageDraw.ImageDraw, item: DrawnObject, color: Color, stroke: int) -> None:
    """Draw the box and the points of an object."""
    if item.box is not None:
        x1, y1, x2, y2 = item.box
        for line, reach, width in ((SHADOW, stroke + 1, stroke + 2), (color, stroke, stroke)):
            draw.rectangle((x1 - reach, y1 - reach, x2 - 1 + reach, y2 - 1 + reach), outline=line, width=width)
    for x, y in item.points:
        for fill, reach in ((SHADOW, 3 * stroke), (WHITE, 3 * stroke - 1), (color, 2 * stroke)):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)


def _name(
    draw: ImageDraw.ImageDraw, item: DrawnObject, number: int | None, color: Color, stroke: int, canvas: Size
) -> None:
    """Write the number, if one is given, and the label of an object."""
    box = item.box
    if box is None and item.mask is not None and item.mask.any():
        box = mask_box(item.mask)
    if box is not None and item.label is not None and (text := badge_text(item, number)):
        draw_badge(draw, text, (box[0] - stroke, box[1] - stroke), canvas, max(10, 6 * stroke), color)
