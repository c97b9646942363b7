"""Make a scene from a seed, and a labeled sample from a split and an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wise_edge.geometry import Box, Point, interior_points, mask_box
from wise_edge.scenes.family import SHAPES, Family
from wise_edge.scenes.groups import GROUP_KINDS, GroupQuery, find_group_queries
from wise_edge.scenes.layout import ObjectSpec, lay_out
from wise_edge.scenes.queries import KINDS, Query, find_queries
from wise_edge.scenes.rationales import write_rationale
from wise_edge.scenes.render import render

SIDE_PX = 224
SPLITS = {
    "test": range(1_000_000),
    "validation": range(1_000_000, 2_000_000),
    "train": range(2_000_000, 2_000_000_000),
}
"""Seeds of each split; a sample's index counts from the start of its range."""

_MIN_VISIBLE = 0.75  # of an object's own area
REQUESTS = ("find {}", "segment {}", "where is {}?", "show me {}")
_GROUP_REQUESTS = ("find {}", "segment {}", "show me {}")

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class SceneObject(ObjectSpec):
    """A drawn object.

    Attributes:
        box: tight box of the visible pixels, half-open XYXY, px of the image.
        area_px: number of visible pixels.
    """

    box: Box
    area_px: int


@dataclass(frozen=True)
class Scene:
    """An image and its contents.

    Attributes:
        seed: its seed.
        side: height and width, px.
        image: HWC uint8, sRGB.
        masks: bool, N x H x W, visible pixels of each object, disjoint.
        objects: N objects, rearmost first.
        queries: of the requested kind or of all kinds; each is true of exactly one object. None in a `GroupSample`.
    """

    seed: int
    side: int
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    objects: tuple[SceneObject, ...]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Sample:
    """A scene with one query and its truth, all in pixels of the scene's image."""

    scene: Scene
    query: Query
    request: str

    @property
    def target(self) -> SceneObject:
        """The object that the query names."""
        return self.scene.objects[self.query.target]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Visible pixels of the target, bool, H x W."""
        mask: NDArray[np.bool_] = self.scene.masks[self.query.target]
        return mask

    @property
    def box(self) -> Box:
        """Box of the target, half-open XYXY."""
        return self.target.box

    @cached_property
    def points(self) -> tuple[Point, Point]:
        """Centers of the two largest circles inscribed in the mask, as (x, y)."""
        return interior_points(self.mask)

    def rationale(self, level: str) -> str:
        """Return the reasoning at one of `LEVELS`."""
        return write_rationale(self.scene.objects, self.query, level)


@dataclass(frozen=True)
class GroupSample:
    """A scene with one query that means any number of objects, and its truth, in pixels of the scene's image."""

    scene: Scene
    query: GroupQuery
    request: str

    @property
    def targets(self) -> tuple[SceneObject, ...]:
        """The objects that the query names."""
        return tuple(self.scene.objects[index] for index in self.query.targets)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Visible pixels of each target, bool, N x H x W, disjoint."""
        masks: NDArray[np.bool_] = self.scene.masks[list(self.query.targets)]
        return masks


def generate(seed: int, side: int = SIDE_PX, family: Family = SHAPES, kind: str | None = None) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: any integer; the same seed gives the same scene on every machine.
        side: height and width of the image, px.
        family: what it can contain.
        kind: one of `KINDS`, for a scene with a query of this kind; None for a query of any kind.
    """

    def find(specs: Sequence[ObjectSpec]) -> list[Query]:
        return [query for name in ((kind,) if kind else KINDS) for query in find_queries(specs, name)]

    scene, queries = _draw(seed, kind or "any", side, family, find)
    return replace(scene, queries=tuple(queries))


def _draw(
    seed: int, name: str, side: int, family: Family, find: Callable[[Sequence[ObjectSpec]], list[_Found]]
) -> tuple[Scene, list[_Found]]:
    """Return the first scene of a seed for which there are queries, and these."""
    attempt = 0
    while True:
        rng = Random(f"{seed}/{name}/{attempt}")
        attempt += 1
        specs = lay_out(rng, family)
        if specs is None:
            continue
        queries = find(specs)
        if not queries:
            continue
        drawn = render(specs, side, rng)
        if min(drawn.visible) >= _MIN_VISIBLE:
            objects = tuple(
                SceneObject(**vars(spec), box=mask_box(mask), area_px=int(mask.sum()))
                for spec, mask in zip(specs, drawn.masks, strict=True)
            )
            return Scene(seed, side, drawn.image, drawn.masks, objects, ()), queries


def sample(split: str, index: int, side: int = SIDE_PX, family: Family = SHAPES) -> Sample:
    """Return one labeled sample; kinds of queries alternate by index.

    Args:
        split: a key of `SPLITS`.
        index: position in the split, 0 or more.
        side: height and width of the image, px.
        family: what it can contain.
    """
    seed = SPLITS[split][index]
    kind = KINDS[seed % len(KINDS)]
    scene = generate(seed, side, family, kind)
    rng = Random(f"{seed}/query")
    query = _choose(rng, scene.queries, lambda query: query.target)
    return Sample(scene, query, _request(rng, REQUESTS, query.text))


def sample_group(split: str, index: int, side: int = SIDE_PX, family: Family = SHAPES) -> GroupSample:
    """Return one labeled sample of a query that means no, one or several objects, by turns.

    Args:
        split: a key of `SPLITS`.
        index: position in the split, 0 or more.
        side: height and width of the image, px.
        family: what it can contain.
    """
    seed = SPLITS[split][index]
    kind = GROUP_KINDS[seed % len(GROUP_KINDS)]
    scene, queries = _draw(seed, f"group-{kind}", side, family, lambda specs: find_group_queries(specs, kind, family))
    rng = Random(f"{seed}/group-query")
    query = _choose(rng, queries, lambda query: query.form, lambda query: query.targets)
    return GroupSample(scene, query, _request(rng, _GROUP_REQUESTS, query.text))


def _choose(rng: Random, queries: Sequence[_Found], *keys: Callable[[_Found], Any]) -> _Found:
    """Return a query; by each key in turn, every value that is left is as likely, however many queries have it."""
    for key in keys:
        value = rng.choice(sorted({key(query) for query in queries}))
        queries = [query for query in queries if key(query) == value]
    return rng.choice(queries)


def _request(rng: Random, requests: Sequence[str], text: str) -> str:
    """Return a query as a request, or more often as it is."""
    return (rng.choice(requests) if rng.random() < 0.3 else "{}").format(text)
