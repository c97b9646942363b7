"""What queries call objects: by some of their attributes, as a group, or by the side of another object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from wise_edge.scenes.layout import ObjectSpec

ATTRIBUTES = ("size", "texture", "color", "shape")
CLEAR_DISTANCE = 0.07  # between centers, of the image's side
SIDES: tuple[tuple[str, int, int], ...] = (
    ("left of", 0, -1),
    ("right of", 0, 1),
    ("above", 1, -1),
    ("below", 1, 1),
)


@dataclass(frozen=True)
class Group:
    """Objects that a noun names: all objects, those of a kind or those of a color."""

    noun: str
    plural: str
    members: tuple[int, ...]
    misfit: Callable[[ObjectSpec], str]


def object_groups(specs: Sequence[ObjectSpec]) -> Iterator[Group]:
    """Yield all objects, those of each kind and those of each color."""
    everything = tuple(range(len(specs)))
    yield Group("object", "objects", everything, lambda spec: "")
    for shape in dict.fromkeys(spec.shape for spec in specs):
        members = tuple(i for i in everything if specs[i].shape == shape)
        yield Group(shape, plural_noun(shape), members, lambda spec: f"is a {spec.shape}")
    for color in dict.fromkeys(spec.color for spec in specs):
        members = tuple(i for i in everything if specs[i].color == color)
        yield Group(
            f"{color} object",
            f"{color} objects",
            members,
            lambda spec: f"is {spec.color}",
        )


def plural_noun(noun: str) -> str:
    """Return the plural of a noun or noun phrase: "red crosses"."""
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def name_by(spec: ObjectSpec, names: Sequence[str]) -> str:
    """Return an object's noun phrase by some of `ATTRIBUTES`: "small ring", "red object"."""
    words = [getattr(spec, name) for name in ("size", "texture", "color") if name in names]
    return " ".join([*words, spec.shape if "shape" in names else "object"])


def unique_names(specs: Sequence[ObjectSpec], target: int) -> Iterator[tuple[str, ...]]:
    """Yield the sets of attribute names that identify the target, with at most one superfluous name."""
    own = specs[target]
    names = [name for name in ATTRIBUTES if (name, own.texture) != ("texture", "plain")]

    def matches(chosen: Sequence[str]) -> int:
        return sum(all(getattr(spec, name) == getattr(own, name) for name in chosen) for spec in specs)

    shortest = None
    for length in range(1, len(names) + 1):
        for chosen in combinations(names, length):
            if matches(chosen) == 1:
                shortest = shortest or length
                if length <= shortest + 1:
                    yield chosen
