"""Place the objects of a scene: the part that needs no pixels.

All choices come from `random.Random`, whose sequence Python guarantees across versions and machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from wise_edge.scenes.family import Family, Kind

MIN_OBJECTS, MAX_OBJECTS = 2, 6
PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "center", "right"),
    ("lower left", "bottom", "lower right"),
)


@dataclass(frozen=True)
class ObjectSpec:
    """One object to draw.

    Attributes:
        kind: its kind.
        color: color name; `rgb` is the drawn sRGB value, close to that of the name.
        size: size name.
        texture: "plain", "striped" or "dotted".
        tilted: rotated from its upright pose by `angle_deg`, clockwise.
        center: (x, y), fractions of the image's side, x to the right, y downwards.
        radius: of the circumscribed circle, a fraction of the image's side.
    """

    kind: Kind
    color: str
    rgb: tuple[int, int, int]
    size: str
    texture: str
    tilted: bool
    angle_deg: float
    center: tuple[float, float]
    radius: float

    @property
    def shape(self) -> str:
        """Name of the object's kind."""
        return self.kind.name

    @property
    def place(self) -> str:
        """The ninth of the image that contains the center, in words."""
        x, y = self.center
        return PLACES[min(int(3 * y), 2)][min(int(3 * x), 2)]

    @property
    def area(self) -> float:
        """Area of the complete, unoccluded shape as a fraction of the image's area."""
        filled, *holes = (_shoelace(outline) for outline in self.kind.outlines)
        return (filled - sum(holes)) * self.radius**2

    def describe(self) -> str:
        """Return the object's attributes as a noun phrase without an article: "small striped red ring"."""
        texture = () if self.texture == "plain" else (self.texture,)
        return " ".join((self.size, *texture, self.color, self.shape))


def _shoelace(outline: tuple[tuple[float, float], ...]) -> float:
    pairs = zip(outline, outline[1:] + outline[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def lay_out(rng: Random, family: Family) -> tuple[ObjectSpec, ...] | None:
    """Choose attributes and places of one scene's objects, rearmost first; None if they do not fit.

    Kinds and colors come from small pools in most scenes, so that objects share attributes and a query must
    distinguish them. No two objects have both the same description and the same place.
    """
    count = rng.randint(MIN_OBJECTS, MAX_OBJECTS)
    kinds = rng.sample(family.kinds, rng.choice((1, 2, 2, 3, 3, 4, len(family.kinds))))
    colors = rng.sample(family.colors, rng.choice((1, 2, 2, 3, 3, 4, len(family.colors))))
    large_share = rng.choice((0.2, 0.5, 0.8)) if count <= 4 else 0.3
    crowded = rng.random() < 0.35
    placed: list[ObjectSpec] = []
    for _ in range(count):
        drawn = _draw(rng, family, rng.choice(kinds), rng.choice(colors), large_share)
        spec = _find_room(rng, drawn, placed, 0.62 if crowded else 1.04)
        if spec is None:
            return None
        placed.append(spec)
    names = {(spec.describe(), spec.place) for spec in placed}
    return tuple(placed) if len(names) == count else None


def _draw(
    rng: Random,
    family: Family,
    kind: Kind,
    color: tuple[str, tuple[int, int, int]],
    large_share: float,
) -> ObjectSpec:
    size, (low, high) = family.sizes[-1 if rng.random() < large_share else 0]
    texture = family.textures[0] if rng.random() < 0.7 else rng.choice(family.textures[1:])
    tilted = kind.symmetry_deg > 0 and rng.random() < 0.4
    sway = rng.uniform(0.3, 0.5) if tilted else rng.uniform(0.0, 0.05)
    angle = rng.choice((-1, 1)) * sway * kind.symmetry_deg
    rgb = tuple(min(255, max(0, value + rng.randint(-10, 10))) for value in color[1])
    radius = rng.uniform(low, high)
    return ObjectSpec(
        kind,
        color[0],
        (rgb[0], rgb[1], rgb[2]),
        size,
        texture,
        tilted,
        angle,
        (0.5, 0.5),
        radius,
    )


def _find_room(rng: Random, spec: ObjectSpec, placed: list[ObjectSpec], spacing: float) -> ObjectSpec | None:
    margin = spec.radius + 0.01
    for _ in range(20):
        center = (rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin))
        near_border = any(abs(value - third) < 0.02 for value in center for third in (1 / 3, 2 / 3))
        if near_border or any(
            math.dist(center, other.center) < spacing * (spec.radius + other.radius) for other in placed
        ):
            continue
        fields = {**spec.__dict__, "center": center}
        return ObjectSpec(**fields)
    return None
