"""Find the queries that hold for exactly one object of a layout.

A query is kept only if it is clear: the runner-up loses by a margin that a person would see. `lead` and `verdicts`
hold the reasoning behind it, from which `rationales` builds text of any length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wise_edge.scenes.layout import ObjectSpec
from wise_edge.scenes.naming import CLEAR_DISTANCE, SIDES, Group, name_by, object_groups, unique_names

KINDS = ("attribute", "position", "relation", "comparison", "reasoning")

_CLEAR_EDGE = 0.02  # between the outermost edges, of the image's side
_CLEAR_RATIO = 1.5  # of areas; holds even if a quarter of the larger shape is hidden
_CLEAR_DISTANCE_RATIO = 1.3


@dataclass(frozen=True)
class Query:
    """A query with exactly one correct object.

    Attributes:
        kind: one of `KINDS`.
        text: the query as a noun phrase, "the star left of the blue square".
        target: index of the correct object.
        lead: the deciding fact, to be followed by the target's name: "the leftmost ring is".
        verdicts: for each object, why it is or is not the one: "is further to the right".
        candidates: indices of the objects in question, including the target.
        anchor: index of the object that the query refers to, if any.
    """

    kind: str
    text: str
    target: int
    lead: str
    verdicts: tuple[str, ...]
    candidates: tuple[int, ...]
    anchor: int | None = None


def find_queries(specs: Sequence[ObjectSpec], kind: str) -> list[Query]:
    """Return every clear query of one kind, in a fixed order."""
    finders = {
        "attribute": _attribute,
        "position": _position,
        "relation": _relation,
        "comparison": _comparison,
        "reasoning": _reasoning,
    }
    return list(finders[kind](specs))


def _verdicts(
    specs: Sequence[ObjectSpec],
    group: Group,
    target: int,
    fits: str,
    fails: Mapping[int, str],
) -> tuple[str, ...]:
    """Say of each object why it is the target, why not, or why it is not even a candidate."""
    return tuple(
        fits if i == target else fails[i] if i in group.members else group.misfit(spec) for i, spec in enumerate(specs)
    )


# attribute: "the small red ring"


def _mismatch(spec: ObjectSpec, wanted: ObjectSpec, names: Sequence[str]) -> str:
    name = next(name for name in reversed(names) if getattr(spec, name) != getattr(wanted, name))
    return f"is a {spec.shape}" if name == "shape" else f"is {getattr(spec, name)}"


def _attribute(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    for target, own in enumerate(specs):
        for names in unique_names(specs, target):
            phrase = name_by(own, names)

            verdicts = tuple(
                f"is the {phrase}" if i == target else _mismatch(spec, own, names) for i, spec in enumerate(specs)
            )
            shared = names[-1]
            near = tuple(i for i, spec in enumerate(specs) if getattr(spec, shared) == getattr(own, shared))
            yield Query(
                "attribute",
                f"the {phrase}",
                target,
                f"the only {phrase} is",
                verdicts,
                near,
            )


# position: "the leftmost ring"

_EDGES: tuple[tuple[str, str, str, int, int], ...] = (
    ("leftmost", "furthest to the left", "is further to the right", 0, 1),
    ("rightmost", "furthest to the right", "is further to the left", 0, -1),
    ("topmost", "closest to the top", "is further down", 1, 1),
    ("lowest", "closest to the bottom", "is further up", 1, -1),
)


def _position(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    for group in object_groups(specs):
        if len(group.members) < 2:
            continue
        yield from _by_edge(specs, group)
        yield from _by_center(specs, group)
        yield from _by_place(specs, group)


def _by_edge(specs: Sequence[ObjectSpec], group: Group) -> Iterator[Query]:
    for word, phrase, worse, axis, sign in _EDGES:
        ranked = sorted(group.members, key=lambda i: sign * specs[i].center[axis])
        centers = [sign * specs[i].center[axis] for i in ranked]
        edges = [center - specs[i].radius for center, i in zip(centers, ranked, strict=True)]
        if centers[1] - centers[0] < CLEAR_DISTANCE or min(edges[1:]) - edges[0] < _CLEAR_EDGE:
            continue
        verdicts = _verdicts(specs, group, ranked[0], f"is {phrase}", dict.fromkeys(group.members, worse))
        for text in (f"the {word} {group.noun}", f"the {group.noun} {phrase}"):
            yield Query(
                "position",
                text,
                ranked[0],
                f"the {word} {group.noun} is",
                verdicts,
                group.members,
            )


def _by_center(specs: Sequence[ObjectSpec], group: Group) -> Iterator[Query]:
    ranked = sorted(group.members, key=lambda i: math.dist(specs[i].center, (0.5, 0.5)))
    first, second = (math.dist(specs[i].center, (0.5, 0.5)) for i in ranked[:2])
    if second < _CLEAR_DISTANCE_RATIO * first or second - first < CLEAR_DISTANCE:
        return
    fails = dict.fromkeys(group.members, "is further from the center")
    verdicts = _verdicts(specs, group, ranked[0], "is closest to the center", fails)
    text = f"the {group.noun} closest to the center"
    yield Query("position", text, ranked[0], f"{text} is", verdicts, group.members)


def _by_place(specs: Sequence[ObjectSpec], group: Group) -> Iterator[Query]:
    counts = Counter(specs[i].place for i in group.members)
    for target in group.members:
        place = specs[target].place
        if counts[place] > 1:
            continue
        fails = {i: f"is at the {specs[i].place}" for i in group.members}
        verdicts = _verdicts(specs, group, target, f"is at the {place}", fails)
        text = f"the {group.noun} at the {place}"
        yield Query("position", text, target, f"{text} is", verdicts, group.members)


# relation: "the star left of the blue square"


def _relation(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    for anchor, reference in enumerate(specs):
        names = next(unique_names(specs, anchor), None)
        if names is None:
            continue
        name = name_by(reference, names)
        for group in object_groups(specs):
            others = tuple(i for i in group.members if i != anchor)
            if others:
                without = Group(group.noun, group.plural, others, group.misfit)
                yield from _by_side(specs, without, anchor, name)
                yield from _by_distance(specs, without, anchor, name)


def _relation_query(
    specs: Sequence[ObjectSpec],
    group: Group,
    anchor: int,
    target: int,
    phrase: str,
    text: str,
) -> Query:
    fails = dict.fromkeys(group.members, f"is not {phrase}")
    verdicts = list(_verdicts(specs, group, target, f"is {phrase}", fails))
    verdicts[anchor] = "is the one to compare with"
    return Query("relation", text, target, f"{text} is", tuple(verdicts), group.members, anchor)


def _by_side(specs: Sequence[ObjectSpec], group: Group, anchor: int, name: str) -> Iterator[Query]:
    for words, axis, sign in SIDES:
        ahead = {i: sign * (specs[i].center[axis] - specs[anchor].center[axis]) for i in group.members}
        inside = [i for i, distance in ahead.items() if distance > 0]
        if len(inside) == 1 and all(abs(distance) >= CLEAR_DISTANCE for distance in ahead.values()):
            phrase = f"{words} the {name}"
            text = f"the {group.noun} {phrase}"
            yield _relation_query(specs, group, anchor, inside[0], phrase, text)


def _by_distance(specs: Sequence[ObjectSpec], group: Group, anchor: int, name: str) -> Iterator[Query]:
    if len(group.members) < 2:
        return
    distance = {i: math.dist(specs[i].center, specs[anchor].center) for i in group.members}
    ranked = sorted(group.members, key=distance.__getitem__)
    if distance[ranked[1]] >= _CLEAR_DISTANCE_RATIO * distance[ranked[0]]:
        phrase = f"closest to the {name}"
        yield _relation_query(specs, group, anchor, ranked[0], phrase, f"the {group.noun} {phrase}")


# comparison: "the largest triangle"


def _comparison(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    for group in object_groups(specs):
        if len(group.members) < 2:
            continue
        for word, pair_word, worse, sign in (
            ("largest", "larger", "is smaller", -1),
            ("smallest", "smaller", "is larger", 1),
        ):
            ranked = sorted(group.members, key=lambda i: sign * specs[i].area)
            areas = sorted((specs[ranked[0]].area, specs[ranked[1]].area))
            radii = sorted((specs[ranked[0]].radius, specs[ranked[1]].radius))
            same_order = (specs[ranked[0]].radius - specs[ranked[1]].radius) * sign < 0
            if areas[1] < _CLEAR_RATIO * areas[0] or radii[1] < 1.15 * radii[0] or not same_order:
                continue
            verdicts = _verdicts(
                specs,
                group,
                ranked[0],
                f"is the {word}",
                dict.fromkeys(group.members, worse),
            )
            texts = [f"the {word} {group.noun}"]
            if len(group.members) == 2:
                texts.append(f"the {pair_word} of the two {group.plural}")
            for text in texts:
                yield Query(
                    "comparison",
                    text,
                    ranked[0],
                    f"the {word} {group.noun} is",
                    verdicts,
                    group.members,
                )


# reasoning: "the one whose color no other object has"


def _reasoning(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    everything = tuple(range(len(specs)))
    if len(specs) > 2:
        yield from _unique_attribute(specs, everything, "color", "the one whose color no other object has")
        yield from _unique_attribute(specs, everything, "shape", "the one whose shape no other object has")
    yield from _most_corners(specs, everything)
    yield from _same_as(specs)
    yield from _by_use(specs, everything)


def _unique_attribute(
    specs: Sequence[ObjectSpec], everything: tuple[int, ...], name: str, text: str
) -> Iterator[Query]:
    counts = Counter(getattr(spec, name) for spec in specs)
    unique = [i for i in everything if counts[getattr(specs[i], name)] == 1]
    if len(unique) != 1:
        return
    verdicts = tuple(f"has a {name} of its own" if i == unique[0] else f"shares its {name}" for i in everything)
    yield Query(
        "reasoning",
        text,
        unique[0],
        f"the only {_known_by(name, getattr(specs[unique[0]], name))} is",
        verdicts,
        everything,
    )


def _known_by(name: str, value: str) -> str:
    """Return a noun for an object known by one attribute, "yellow one" or "star".

    Writing the value first resolves one of two look-ups before the second, the place.
    """
    return value if name == "shape" else f"{value} one"


def _most_corners(specs: Sequence[ObjectSpec], everything: tuple[int, ...]) -> Iterator[Query]:
    ranked = sorted(everything, key=lambda i: -specs[i].kind.corners)
    if specs[ranked[0]].kind.corners == specs[ranked[1]].kind.corners:
        return

    def corners(spec: ObjectSpec) -> str:
        return f"has {spec.kind.corners or 'no'} corners"

    verdicts = tuple(corners(spec) for spec in specs)
    text = "the shape with the most corners"
    yield Query(
        "reasoning",
        text,
        ranked[0],
        "the one with the most corners is",
        verdicts,
        everything,
    )


def _same_as(specs: Sequence[ObjectSpec]) -> Iterator[Query]:
    for anchor, reference in enumerate(specs):
        for name in ("color", "shape"):
            value = getattr(reference, name)
            mates = [i for i, spec in enumerate(specs) if i != anchor and getattr(spec, name) == value]
            handles = [names for names in unique_names(specs, anchor) if name not in names]
            if len(mates) != 1 or not handles or len(specs) < 3:
                continue
            handle = name_by(reference, handles[0])
            verdicts = [f"has the same {name}" if i == mates[0] else f"has another {name}" for i in range(len(specs))]
            verdicts[anchor] = "is the one to compare with"
            candidates = tuple(i for i in range(len(specs)) if i != anchor)
            text = f"the other object with the {name} of the {handle}"
            yield Query(
                "reasoning",
                text,
                mates[0],
                f"the other {_known_by(name, value)} is",
                tuple(verdicts),
                candidates,
                anchor,
            )


def _by_use(specs: Sequence[ObjectSpec], everything: tuple[int, ...]) -> Iterator[Query]:
    for use in dict.fromkeys(use for spec in specs for use in spec.kind.uses):
        users = [i for i in everything if use in specs[i].kind.uses]
        if len(users) == 1:
            verdicts = tuple(f"{'serves' if i in users else 'does not serve'} to {use}" for i in everything)
            text = f"something to {use}"
            yield Query(
                "reasoning",
                text,
                users[0],
                f"the one to {use} is",
                verdicts,
                everything,
            )
