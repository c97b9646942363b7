"""What a scene can contain, as data: names, outlines, attributes and uses.

The generator depends on no particular shape. Another family (everyday objects, say) is another `Family` value.
Outlines are in the unit disc: x to the right, y downwards, radius 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Outline = tuple[tuple[float, float], ...]
"""A closed polygon in the unit disc; a second polygon of a `Kind` is a hole."""


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        name: the noun, singular.
        outlines: polygons in the unit disc; the first is filled, the others are cut out.
        corners: number of corners, 0 for round kinds.
        symmetry_deg: smallest rotation that maps the outline onto itself; 0 for round kinds, which are never tilted.
        uses: what it is used for ("drink from"), for queries by purpose.
    """

    name: str
    outlines: tuple[Outline, ...]
    corners: int
    symmetry_deg: float
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A vocabulary of objects.

    Attributes:
        kinds: what can be drawn.
        colors: name and sRGB value, 0 to 255.
        sizes: name and range of the radius as a fraction of the image's side.
        textures: names that the renderer knows: "plain", "striped", "dotted".
    """

    kinds: tuple[Kind, ...]
    colors: tuple[tuple[str, tuple[int, int, int]], ...]
    sizes: tuple[tuple[str, tuple[float, float]], ...]
    textures: tuple[str, ...] = ("plain", "striped", "dotted")


def _polygon(count: int, radius: Callable[[int], float], start_deg: float = -90.0) -> Outline:
    angles = (math.radians(start_deg + 360.0 * i / count) for i in range(count))
    return tuple((radius(i) * math.cos(a), radius(i) * math.sin(a)) for i, a in enumerate(angles))


def _cross(arm: float) -> Outline:
    reach = math.sqrt(1.0 - arm * arm)
    quarter = ((arm, -reach), (arm, -arm), (reach, -arm))
    turns = ((1, 0), (0, 1), (-1, 0), (0, -1))
    return tuple((x * c - y * s, x * s + y * c) for c, s in turns for x, y in quarter)


_CIRCLE = _polygon(64, lambda _: 1.0)

SHAPES = Family(
    kinds=(
        Kind("circle", (_CIRCLE,), 0, 0.0),
        Kind("ring", (_CIRCLE, tuple((0.5 * x, 0.5 * y) for x, y in _CIRCLE)), 0, 0.0),
        Kind("triangle", (_polygon(3, lambda _: 1.0),), 3, 120.0),
        Kind("square", (_polygon(4, lambda _: 1.0, -45.0),), 4, 90.0),
        Kind("star", (_polygon(10, lambda i: 0.5 if i % 2 else 1.0),), 10, 72.0),
        Kind("cross", (_cross(0.34),), 12, 90.0),
    ),
    colors=(
        ("red", (214, 40, 44)),
        ("orange", (243, 140, 24)),
        ("yellow", (244, 216, 48)),
        ("green", (44, 156, 66)),
        ("cyan", (54, 200, 210)),
        ("blue", (44, 84, 214)),
        ("purple", (136, 58, 184)),
        ("pink", (244, 136, 190)),
    ),
    sizes=(("small", (0.095, 0.12)), ("large", (0.165, 0.205))),
)
"""Flat geometric shapes: the family the embedded models are trained on."""
