"""Draws objects on an image, with mask, box and points, at a readable size.

One object has a color for each of its parts. Several have a color each, and a badge with their number.
Everything is drawn at twice the size and then reduced, so edges are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wise_edge.drawing.panel import ACCENT
from wise_edge.drawing.typography import font_for
from wise_edge.geometry import Box, Point, mask_box

READABLE_PX = 640
LARGEST_PX = 1200
SUPERSAMPLING = 2
CONTOUR = (0, 229, 255)
BOX_COLOR = (255, 191, 0)
POINT_COLOR = (255, 45, 120)
SHADOW = (8, 12, 20)
WHITE = (255, 255, 255)
TINT_SHARE = 0.22
DIMMED = 0.72
COLORS = (
    ACCENT,
    (255, 191, 0),
    (255, 45, 120),
    (118, 255, 3),
    (178, 132, 255),
    (255, 109, 0),
    (41, 121, 255),
    (255, 255, 255),
)
"""Of several objects; see `object_color`."""

Color = tuple[int, int, int]
"""RGB, 0 to 255."""
_LONGEST_BADGE = 24  # characters of a number and a label


@dataclass(frozen=True, eq=False)
class DrawnObject:
    """An object in pixels of the image that it is drawn on.

    Attributes:
        mask: HxW bool, of the image's size; None or empty draws none.
        box: XYXY half-open, or None.
        points: XY, numbered in order if the object is the only one.
        label: what it is called; None draws none.
        number: gives it its color and its badge; None takes its place in order.
    """

    mask: npt.NDArray[np.bool_] | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    label: str | None = None
    number: int | None = None


def object_color(number: int) -> Color:
    """Return the color, RGB, of one of several objects by its number from 1 on; after eight they begin again."""
    return COLORS[(number - 1) % len(COLORS)]


def fitted_size(width: int, height: int, longest: int | None = None) -> tuple[int, int]:
    """Return the drawn size of an image: small images are enlarged, very large ones reduced; the aspect ratio stays.

    Args:
        width: Pixels of the original.
        height: Pixels of the original.
        longest: Requested longer side; None keeps it between `READABLE_PX` and `LARGEST_PX`.

    Returns:
        `(width, height)` in pixels, each at least 1.
    """
    side = max(width, height)
    scale = (longest or min(max(side, READABLE_PX), LARGEST_PX)) / side
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_overlay(
    image: npt.NDArray[np.uint8], objects: Sequence[DrawnObject], longest: int | None = None
) -> Image.Image:
    """Draw objects on an image; what belongs to no mask is dimmed, if there is a mask.

    Args:
        image: HWC uint8 RGB.
        objects: what to draw, numbered in order.
        longest: Longer side of the result; None chooses a readable size.

    Returns:
        An RGB image of `fitted_size`.
    """
    height, width = image.shape[:2]
    size = fitted_size(width, height, longest)
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    canvas = Image.fromarray(image).resize(large, Image.Resampling.BICUBIC)
    several = len(objects) > 1
    numbers = [item.number or place for place, item in enumerate(objects, start=1)]
    colors = [object_color(number) for number in numbers]
    masks = [
        (item.mask, color if several else ACCENT, color if several else CONTOUR)
        for item, color in zip(objects, colors, strict=True)
        if item.mask is not None and item.mask.any()
    ]
    canvas = _tint(canvas, masks)
    draw = ImageDraw.Draw(canvas)
    scale = (large[0] / width, large[1] / height)
    for item, color in zip(objects, colors, strict=True):
        if item.box is not None:
            _draw_box(draw, item.box, scale, _stroke(large), color if several else BOX_COLOR)
        for number, point in enumerate(item.points, start=1):
            _draw_point(draw, point, "" if several else str(number), scale, large, color if several else POINT_COLOR)
    stroke, font_px = _stroke(large), round(max(24, max(large) / 45))
    for number, item, color in zip(numbers, objects, colors, strict=True):
        if item.box is not None and (text := badge_text(item, number if several else None)):
            corner = (round(item.box[0] * scale[0]) - stroke, round(item.box[1] * scale[1]) - stroke)
            draw_badge(draw, text, corner, large, font_px, color if several else BOX_COLOR)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _stroke(large: tuple[int, int]) -> int:
    return max(4, round(max(large) / 240))


def _tint(canvas: Image.Image, masks: Sequence[tuple[npt.NDArray[np.bool_], Color, Color]]) -> Image.Image:
    """Fill masks with their first color and line them with their second; dim the rest of the image."""
    if not masks:
        return canvas
    drawn = Image.blend(Image.new("RGB", canvas.size, SHADOW), canvas, DIMMED)
    stroke = _stroke(canvas.size)
    for mask, fill, _ in masks:
        inside, area = _inside(mask, canvas.size)
        tinted = Image.blend(canvas.crop(area), Image.new("RGB", inside.size, fill), TINT_SHARE)
        drawn.paste(tinted, area, inside)
    for mask, _, line in masks:  # once more, since an object may cover the line of another
        inside, area = _inside(mask, canvas.size)
        for color, reach in ((SHADOW, stroke + 4), (line, stroke + 2)):
            drawn.paste(color, area, _rim(inside, reach))
    return drawn


def _inside(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> tuple[Image.Image, Box]:
    """Return a mask at a size, 0 or 255, cut to where it and its rim lie, and that area of the whole, XYXY."""
    height, width = mask.shape
    scale = (size[0] / width, size[1] / height)
    margin = 2 * (_stroke(size) + 4 + math.ceil(max(scale)))  # beyond what enlarging, blurring and lining reach
    x1, y1, x2, y2 = mask_box(mask)
    left, top = (max(0, math.floor(edge * scale[axis]) - margin) for axis, edge in enumerate((x1, y1)))
    right, bottom = (min(size[axis], math.ceil(edge * scale[axis]) + margin) for axis, edge in enumerate((x2, y2)))
    source = (left / scale[0], top / scale[1], min(width, right / scale[0]), min(height, bottom / scale[1]))
    soft = Image.fromarray(mask.astype(np.uint8) * 255)
    soft = soft.resize((right - left, bottom - top), Image.Resampling.BILINEAR, source)
    soft = soft.filter(ImageFilter.GaussianBlur(0.4 * scale[0]))  # hides the steps of pixels
    return soft.point([255 if level >= 128 else 0 for level in range(256)]), (left, top, right, bottom)


def _rim(inside: Image.Image, reach: int) -> Image.Image:
    """Return the band of `reach` pixels along the outer side of a mask's edge."""
    grown = inside.filter(ImageFilter.GaussianBlur(reach / 2)).point([255 if level > 8 else 0 for level in range(256)])
    grown.paste(0, mask=inside)
    return grown


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, scale: tuple[float, float], stroke: int, line: Color) -> None:
    x1, y1, x2, y2 = (round(edge * scale[axis % 2]) for axis, edge in enumerate(box))
    for color, outward, width in ((SHADOW, stroke + 2, stroke + 4), (line, stroke, stroke)):
        edges = [x1 - outward, y1 - outward, x2 - 1 + outward, y2 - 1 + outward]
        draw.rectangle(edges, outline=color, width=width)


def _draw_point(
    draw: ImageDraw.ImageDraw,
    point: Point,
    text: str,
    scale: tuple[float, float],
    large: tuple[int, int],
    fill: Color,
) -> None:
    x, y = ((place + 0.5) * scale[axis] for axis, place in enumerate(point))
    radius = max(14.0, max(large) / 62) * (1 if text else 0.5)
    for color, share in ((SHADOW, 1.28), (WHITE, 1.14), (fill, 0.92)):
        reach = radius * share
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=color)
    draw.text((x, y), text, fill=WHITE, font=font_for(text, round(radius * 1.3)), anchor="mm")


def badge_text(item: DrawnObject, number: int | None) -> str:
    """Return the number, if one is given, and the label of an object, cut to what a badge has room for."""
    text = " ".join([*([str(number)] if number else []), *([item.label] if item.label else [])])
    return text if len(text) <= _LONGEST_BADGE else f"{text[: _LONGEST_BADGE - 1]}…"


def draw_badge(
    draw: ImageDraw.ImageDraw, text: str, corner: Point, canvas: tuple[int, int], font_px: int, fill: Color
) -> None:
    """Write a text above the upper left corner of a box, or within it where the canvas ends.

    Args:
        draw: of the canvas.
        text: in one line.
        corner: XY, px of the canvas.
        canvas: its width and height, px.
        font_px: height of the text.
        fill: color below the text.
    """
    font = font_for(text, font_px)
    width, height = round(font.getlength(text)) + font_px, round(font_px * 1.4)
    left = max(0, min(corner[0], canvas[0] - width))
    top = max(0, corner[1] - height)
    draw.rounded_rectangle(
        [left, top, left + width, top + height], font_px // 4, fill=fill, outline=SHADOW, width=max(1, font_px // 12)
    )
    draw.text((left + width / 2, top + height / 2), text, fill=SHADOW, font=font, anchor="mm")
