"""Queries of several objects or of none mean what their words say, worked out without the code that wrote them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from wise_edge.datasets import open_dataset
from wise_edge.scenes import GROUP_KINDS, SHAPES, GroupSample, SceneObject, sample_group

NOUNS = {
    plural: noun for noun in ("circle", "ring", "triangle", "square", "star", "object") for plural in (noun, f"{noun}s")
} | {"cross": "cross", "crosses": "cross"}
COUNTS = {"both": 2, "the two": 2, "the three": 3, "the four": 4, "the five": 5, "the six": 6}
SIDES = {
    "left of": lambda item, anchor: item.center[0] < anchor.center[0],
    "right of": lambda item, anchor: item.center[0] > anchor.center[0],
    "above": lambda item, anchor: item.center[1] < anchor.center[1],
    "below": lambda item, anchor: item.center[1] > anchor.center[1],
}


@pytest.fixture(scope="module")
def samples() -> list[GroupSample]:
    """The first samples of the test split."""
    return [sample_group("test", index) for index in range(240)]


def named(items: tuple[SceneObject, ...], phrase: str) -> set[int]:
    """Return the indices of the objects that a phrase such as "small striped red rings" describes."""
    *words, noun = phrase.split()
    wanted = {*words} | ({NOUNS[noun]} - {"object"})
    return {i for i, item in enumerate(items) if wanted <= {item.size, item.texture, item.color, item.shape}}


def meant(items: tuple[SceneObject, ...], text: str) -> set[int]:
    """Return the indices of the objects that a query means."""
    if match := re.fullmatch(r"(?:everything except|all objects but) the (.+)", text):
        (left_out,) = named(items, match[1])
        return {*range(len(items))} - {left_out}
    if match := re.fullmatch(r"the (.+) and the (.+)", text):
        (first,), (second,) = named(items, match[1]), named(items, match[2])
        return {first, second}
    if match := re.fullmatch(r"(the|all) (.+) (left of|right of|above|below) the (.+)", text):
        (anchor,) = named(items, match[4])
        return {i for i in named(items, match[2]) - {anchor} if SIDES[match[3]](items[i], items[anchor])}
    match = re.fullmatch(r"(the (?:two|three|four|five|six)|both|all|the) (.+)", text)
    assert match is not None, text
    found = named(items, match[2])
    assert len(found) == COUNTS.get(match[1], len(found))
    return found


def test_queries_mean_what_they_say(samples: list[GroupSample]) -> None:
    for item in samples:
        assert item.request.replace("?", "").endswith(item.query.text)
        assert len(item.query.targets) in {"none": (0,), "one": (1,), "several": range(2, 7)}[item.query.kind]
        if item.query.kind != "one":
            assert {*item.query.targets} == meant(item.scene.objects, item.query.text), item.query.text


def test_all_kinds_and_forms_occur(samples: list[GroupSample]) -> None:
    forms = Counter((item.query.kind, item.query.form) for item in samples if item.query.kind != "one")
    assert Counter(item.query.kind for item in samples) == dict.fromkeys(GROUP_KINDS, 80)
    assert {*forms} == {
        *(("several", form) for form in ("attribute", "side", "except", "pair")),
        *(("none", form) for form in ("attribute", "side")),
    }
    assert min(forms.values()) >= 8
    assert {len(item.targets) for item in samples} >= {0, 1, 2, 3, 4}


def test_absent_objects_are_hard_to_miss(samples: list[GroupSample]) -> None:
    texts = [item for item in samples if (item.query.kind, item.query.form) == ("none", "attribute")]
    colors = {color for color, _ in SHAPES.colors}
    near = [item for item in texts if colors & {*item.query.text.split()} & {each.color for each in item.scene.objects}]
    assert len(near) > len(texts) / 4, "a color that other objects have"
    assert len(near) < len(texts), "and some that nothing has"


def test_examples_hold_each_object(samples: list[GroupSample]) -> None:
    data = open_dataset("scenes-generalized", None, "test")
    assert (data.name, list(data.ids[:2]), data.sources(2)) == ("scenes-generalized", ["test-0", "test-1"], [])
    for index in range(9):
        item, example = samples[index], data[index]
        assert (example.id, example.query, example.kind) == (f"test-{index}", item.request, item.query.kind)
        assert example.objects is not None and example.mask is not None
        assert [each.box for each in example.objects] == [each.box for each in item.targets]
        for each, place in zip(example.objects, item.query.targets, strict=True):
            np.testing.assert_array_equal(each.mask, item.scene.masks[place])
        np.testing.assert_array_equal(example.mask, item.scene.masks[list(item.query.targets)].any(axis=0))


def test_samples_are_the_same_on_every_machine(samples: list[GroupSample]) -> None:
    sums = hashlib.sha256()
    for item in samples[:24]:
        sums.update(item.scene.image.tobytes() + np.packbits(item.masks).tobytes())
        sums.update(f"{item.request}\n{item.query}".encode())
    assert sums.hexdigest()[:16] == "6978168700d6ed01"
