"""Draw a layout: image and exact visible masks.

Shapes are filled on an integer grid four times finer than the image; textures and noise use integers only.
Therefore a seed gives the same bytes on every machine; tests/scenes/test_scenes.py holds golden hashes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wise_edge.scenes.layout import ObjectSpec

_FINE = 4


@dataclass(frozen=True)
class Rendering:
    """A drawn layout.

    Attributes:
        image: HWC uint8, sRGB.
        masks: bool, N x H x W, the visible pixels of each object; disjoint.
        visible: for each object, the visible share of its complete shape, 0 to 1.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    visible: tuple[float, ...]


def render(specs: tuple[ObjectSpec, ...], side: int, rng: Random) -> Rendering:
    """Draw `specs`, rearmost first, on a random background.

    Args:
        specs: the objects.
        side: height and width of the image, px.
        rng: chooses background, noise and texture phases.
    """
    canvas = _background(rng, side)
    masks = np.zeros((len(specs), side, side), dtype=np.bool_)
    whole = []
    for index, spec in enumerate(specs):
        (top, left), coverage = _coverage(spec, side)
        rows, columns = (
            slice(top, top + coverage.shape[0]),
            slice(left, left + coverage.shape[1]),
        )
        paint = _paint(rng, spec, coverage.shape, side)
        alpha = coverage[..., None].astype(np.int16)
        patch = canvas[rows, columns]
        canvas[rows, columns] = patch + (paint - patch) * alpha // (_FINE * _FINE)
        inside = 2 * coverage >= _FINE * _FINE
        masks[:index, rows, columns] &= ~inside
        masks[index, rows, columns] = inside
        whole.append(int(inside.sum()))
    visible = tuple(int(mask.sum()) / area for mask, area in zip(masks, whole, strict=True))
    return Rendering(_add_noise(rng, canvas), masks, visible)


def _coverage(spec: ObjectSpec, side: int) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """Return (top, left) of the object's crop and, per pixel, how many of its 16 sub-pixels are covered."""
    (x, y), radius = ((value * side for value in spec.center), spec.radius * side)
    left, top = max(0, math.floor(x - radius) - 1), max(0, math.floor(y - radius) - 1)
    width = min(side, math.ceil(x + radius) + 1) - left
    height = min(side, math.ceil(y + radius) + 1) - top
    cosine, sine = (
        math.cos(math.radians(spec.angle_deg)),
        math.sin(math.radians(spec.angle_deg)),
    )
    fine = Image.new("L", (width * _FINE, height * _FINE))
    draw = ImageDraw.Draw(fine)
    for number, outline in enumerate(spec.kind.outlines):
        points = [
            (
                round((x - left + radius * (u * cosine - v * sine)) * _FINE),
                round((y - top + radius * (u * sine + v * cosine)) * _FINE),
            )
            for u, v in outline
        ]
        draw.polygon(points, fill=0 if number else 1)
    # Rows first, then slices: numpy is five times slower over both short axes at once.
    by_row = np.asarray(fine).reshape(height, _FINE, width * _FINE).sum(axis=1, dtype=np.uint8)
    counts = np.zeros((height, width), dtype=np.uint8)
    for offset in range(_FINE):
        counts += by_row[:, offset::_FINE]
    return (top, left), counts


def _paint(rng: Random, spec: ObjectSpec, shape: tuple[int, ...], side: int) -> NDArray[np.int16]:
    """Return the object's color per pixel, int16, h x w x 3."""
    paint = np.empty((*shape, 3), dtype=np.int16)
    paint[:] = spec.rgb
    if spec.texture == "plain":
        return paint
    period = max(4, round(0.42 * spec.radius * side))
    angle = math.radians(rng.randint(0, 179))
    cosine, sine, phase = (
        round(1024 * math.cos(angle)),
        round(1024 * math.sin(angle)),
        rng.randrange(period),
    )
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    along = (columns * cosine + rows * sine) // 1024 + phase
    across = (rows * cosine - columns * sine) // 1024 + phase
    if spec.texture == "striped":
        paint[along % period < period // 2] = [value * 45 // 100 for value in spec.rgb]
    else:
        dots = (along % period < period // 2) & (across % period < period // 2)
        paint[dots] = [255 - (255 - value) * 25 // 100 for value in spec.rgb]
    return paint


def _background(rng: Random, side: int) -> NDArray[np.int16]:
    """Return a smooth field of muted colors, int16, side x side x 3."""
    cells = rng.randint(2, 5)
    base, contrast, tint = rng.randint(60, 200), rng.randint(0, 40), rng.randint(0, 12)
    values = []
    for _ in range(cells * cells):
        gray = base + rng.randint(-contrast, contrast)
        values += [min(235, max(20, gray + rng.randint(-tint, tint))) for _ in range(3)]
    small = Image.frombytes("RGB", (cells, cells), bytes(values))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)


def _add_noise(rng: Random, canvas: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Add sensor-like noise of random strength, the same to all three channels."""
    strength = rng.randint(0, 14)
    height, width, _ = canvas.shape
    noise = np.frombuffer(rng.randbytes(2 * height * width), dtype=np.uint8).reshape(2, height, width)
    triangular = noise[0].astype(np.int16) - noise[1]
    noisy = canvas + (triangular * strength // 256)[..., None]
    clipped: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return clipped
