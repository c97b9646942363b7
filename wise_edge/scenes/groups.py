"""Find queries that mean several objects of a layout, or none.

As in `queries`, a query is kept only if it is clear. What a query of no object names is hard to miss: its colors and
shapes are in the layout in other combinations, or one of them is not there at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from wise_edge.scenes.family import Family
from wise_edge.scenes.layout import ObjectSpec
from wise_edge.scenes.naming import (
    ATTRIBUTES,
    CLEAR_DISTANCE,
    SIDES,
    name_by,
    object_groups,
    plural_noun,
    unique_names,
)
from wise_edge.scenes.queries import KINDS, find_queries

GROUP_KINDS = ("none", "one", "several")

_COUNTS = ("", "", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class GroupQuery:
    """A query with any number of correct objects.

    Attributes:
        kind: one of `GROUP_KINDS`, by the number of objects.
        form: what the query is made of: "attribute", "side", "except" or "pair"; of one object, a kind of `Query`.
        text: the query as a noun phrase, "the circles left of the blue square".
        targets: indices of the correct objects, in the layout's order.
    """

    kind: str
    form: str
    text: str
    targets: tuple[int, ...]


def find_group_queries(specs: Sequence[ObjectSpec], kind: str, family: Family) -> list[GroupQuery]:
    """Return every clear query of one kind, in a fixed order.

    Args:
        specs: the objects.
        kind: one of `GROUP_KINDS`.
        family: what a layout can contain, and a query of no object name.
    """
    if kind == "one":
        return [
            GroupQuery("one", query.kind, query.text, (query.target,))
            for name in KINDS
            for query in find_queries(specs, name)
        ]
    if kind == "several":
        return [*_same_attributes(specs), *_on_a_side(specs, several=True), *_all_but_one(specs), *_pairs(specs)]
    return [*_absent(specs, family), *_on_a_side(specs, several=False)]


def _same_attributes(specs: Sequence[ObjectSpec]) -> Iterator[GroupQuery]:
    """Yield queries such as "the red rings", "both squares" and "all small objects"."""
    found: dict[str, tuple[int, ...]] = {}
    for own in specs:
        for names in (names for length in range(1, 5) for names in combinations(ATTRIBUTES, length)):
            if "texture" in names and own.texture == "plain":
                continue
            alike = [all(getattr(spec, name) == getattr(own, name) for name in names) for spec in specs]
            if sum(alike) > 1:
                members = tuple(i for i, same in enumerate(alike) if same)
                found[plural_noun(name_by(own, names))] = members
    for phrase, members in found.items():
        counted = ["both"] if len(members) == 2 else ["all", f"the {_COUNTS[len(members)]}"]
        for word in ("the", *counted):
            yield GroupQuery("several", "attribute", f"{word} {phrase}", members)


def _on_a_side(specs: Sequence[ObjectSpec], several: bool) -> Iterator[GroupQuery]:
    """Yield queries such as "the circles left of the blue square", of several objects or of none."""
    for anchor, reference in enumerate(specs):
        names = next(unique_names(specs, anchor), None)
        if names is None:
            continue
        name = name_by(reference, names)
        for group, (words, axis, sign) in product(object_groups(specs), SIDES):
            ahead = {i: sign * (specs[i].center[axis] - reference.center[axis]) for i in group.members if i != anchor}
            inside = tuple(i for i, distance in ahead.items() if distance > 0)
            if not ahead or any(abs(distance) < CLEAR_DISTANCE for distance in ahead.values()):
                continue
            if several and len(inside) > 1:
                for word in ("the", "all"):
                    text = f"{word} {group.plural} {words} the {name}"
                    yield GroupQuery("several", "side", text, inside)
            elif not several and not inside:
                for noun in (group.noun, group.plural):
                    yield GroupQuery("none", "side", f"the {noun} {words} the {name}", ())


def _all_but_one(specs: Sequence[ObjectSpec]) -> Iterator[GroupQuery]:
    """Yield queries such as "everything except the red ring"."""
    if len(specs) < 3:
        return
    for left_out, own in enumerate(specs):
        names = next(unique_names(specs, left_out), None)
        if names is not None:
            others = tuple(i for i in range(len(specs)) if i != left_out)
            for words in ("everything except", "all objects but"):
                yield GroupQuery("several", "except", f"{words} the {name_by(own, names)}", others)


def _pairs(specs: Sequence[ObjectSpec]) -> Iterator[GroupQuery]:
    """Yield queries such as "the red ring and the blue square"."""
    for pair in combinations(range(len(specs)), 2):
        found = [next(unique_names(specs, i), None) for i in pair]
        phrases = [name_by(specs[i], names) for i, names in zip(pair, found, strict=True) if names is not None]
        if len(phrases) == 2:
            first, second = phrases
            yield GroupQuery("several", "pair", f"the {first} and the {second}", pair)
            yield GroupQuery("several", "pair", f"the {second} and the {first}", pair)


def _absent(specs: Sequence[ObjectSpec], family: Family) -> Iterator[GroupQuery]:
    """Yield queries such as "the red square", where there are red objects and squares but no red square."""
    shapes = {spec.shape for spec in specs}
    colors = {spec.color for spec in specs}
    there = {(spec.color, spec.shape) for spec in specs}
    pairs = product(sorted(colors), sorted(shapes))
    nouns = [f"{color} {shape}" for color, shape in pairs if (color, shape) not in there]
    nouns += [f"{color} object" for color, _ in family.colors if color not in colors]
    nouns += [kind.name for kind in family.kinds if kind.name not in shapes]
    for own in specs:
        alike = [spec for spec in specs if (spec.color, spec.shape) == (own.color, own.shape)]
        for size, _ in family.sizes:
            if size not in {spec.size for spec in alike}:
                nouns.append(f"{size} {own.color} {own.shape}")
        for texture in family.textures[1:]:
            if texture not in {spec.texture for spec in alike}:
                nouns.append(f"{texture} {own.color} {own.shape}")
    for noun in dict.fromkeys(nouns):
        for phrase in (noun, plural_noun(noun)):
            yield GroupQuery("none", "attribute", f"the {phrase}", ())
