"""Draws mask, box and two points on an image, at a readable size.

Everything is drawn at twice the size and then reduced, so edges are smooth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wise_edge.drawing.panel import ACCENT
from wise_edge.drawing.typography import font_for
from wise_edge.geometry import Box, Point

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
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_] | None,
    box: Box | None,
    points: tuple[Point, ...] = (),
    longest: int | None = None,
) -> Image.Image:
    """Draw mask, box and points on an image.

    Args:
        image: HWC uint8 RGB.
        mask: HxW bool, of the image's size; the rest of the image is dimmed. None or empty draws no mask.
        box: XYXY half-open pixels of `image`.
        points: XY pixels of `image`, numbered in order.
        longest: Longer side of the result; None chooses a readable size.

    Returns:
        An RGB image of `fitted_size`.
    """
    height, width = image.shape[:2]
    size = fitted_size(width, height, longest)
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    canvas = Image.fromarray(image).resize(large, Image.Resampling.BICUBIC)
    if mask is not None and mask.any():
        canvas = _tint(canvas, mask)
    draw = ImageDraw.Draw(canvas)
    scale = (large[0] / width, large[1] / height)
    if box is not None:
        _draw_box(draw, box, scale, _stroke(large))
    for number, point in enumerate(points, start=1):
        _draw_point(draw, point, number, scale, large)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _stroke(large: tuple[int, int]) -> int:
    return max(4, round(max(large) / 240))


def _tint(canvas: Image.Image, mask: npt.NDArray[np.bool_]) -> Image.Image:
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(canvas.size, Image.Resampling.BILINEAR)
    soft = soft.filter(ImageFilter.GaussianBlur(0.4 * canvas.width / mask.shape[1]))  # hides the steps of pixels
    inside = soft.point([255 if level >= 128 else 0 for level in range(256)])
    dimmed = Image.blend(Image.new("RGB", canvas.size, SHADOW), canvas, DIMMED)
    tinted = Image.blend(canvas, Image.new("RGB", canvas.size, ACCENT), TINT_SHARE)
    drawn = Image.composite(tinted, dimmed, inside)
    stroke = _stroke(canvas.size)
    for color, reach in ((SHADOW, stroke + 4), (CONTOUR, stroke + 2)):
        drawn.paste(color, mask=_rim(inside, reach))
    return drawn


def _rim(inside: Image.Image, reach: int) -> Image.Image:
    """Return the band of `reach` pixels along the outer side of a mask's edge."""
    grown = inside.filter(ImageFilter.GaussianBlur(reach / 2)).point([255 if level > 8 else 0 for level in range(256)])
    grown.paste(0, mask=inside)
    return grown


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, scale: tuple[float, float], stroke: int) -> None:
    x1, y1, x2, y2 = (round(edge * scale[axis % 2]) for axis, edge in enumerate(box))
    for color, outward, width in ((SHADOW, stroke + 2, stroke + 4), (BOX_COLOR, stroke, stroke)):
        edges = [x1 - outward, y1 - outward, x2 - 1 + outward, y2 - 1 + outward]
        draw.rectangle(edges, outline=color, width=width)


def _draw_point(
    draw: ImageDraw.ImageDraw, point: Point, number: int, scale: tuple[float, float], large: tuple[int, int]
) -> None:
    x, y = ((place + 0.5) * scale[axis] for axis, place in enumerate(point))
    radius = max(14.0, max(large) / 62)
    for color, share in ((SHADOW, 1.28), (WHITE, 1.14), (POINT_COLOR, 0.92)):
        reach = radius * share
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=color)
    draw.text((x, y), str(number), fill=WHITE, font=font_for(str(number), round(radius * 1.3)), anchor="mm")
