from __future__ import annotations

from dataclasses import replace

import pytest

from wise_edge.scenes import SHAPES, sample, sample_group
from wise_edge.scenes.recognition import OTHER_PICTURE, OTHER_QUERY, explain_other_kind
from wise_edge.scenes.vocabulary import unknown_words

SIDE_PX = 32  # only the words are looked at


def test_no_query_of_a_scene_has_an_unknown_word() -> None:
    said = [draw("train", index, SIDE_PX).request for draw in (sample, sample_group) for index in range(1000)]
    assert [text for text in said if unknown_words(text)] == []


@pytest.mark.parametrize(
    "query",
    [
        "The LEFTMOST red ring!",
        "Please find the blue stars.",
        "can you show me which of these is the ring’s color",
        "a red square, to the left of the blue crosses",
        "the six objects",
        "the reds",
    ],
)
def test_stop_words_plurals_punctuation_and_case_are_tolerated(query: str) -> None:
    assert unknown_words(query) == []


@pytest.mark.parametrize(
    ("query", "unknown"),
    [
        ("the elephant", ["elephant"]),
        ("hello", ["hello"]),
        ("das rote Kreuz", ["das", "rote", "kreuz"]),
        ("la croix rouge", ["la", "croix", "rouge"]),
        ("赤い十字", ["赤い十字"]),
        ("the mug behind the red ring", ["mug", "behind"]),
        ("the gray circle", ["gray"]),
        ("the biggest Person, the person", ["biggest", "person"]),
    ],
)
def test_words_of_no_scene_are_named(query: str, unknown: list[str]) -> None:
    assert unknown_words(query) == unknown


def test_the_words_are_those_of_the_family() -> None:
    mug = replace(SHAPES.kinds[0], name="mug", uses=("drink from",))
    family = replace(SHAPES, kinds=(mug, *SHAPES.kinds[2:]), colors=(("gray", (120, 120, 120)), *SHAPES.colors[1:]))
    assert unknown_words("something to drink from: the gray mug", family) == []
    assert unknown_words("the red ring", family) == ["red", "ring"]  # whose places they took


def test_a_foreign_picture_is_said_before_a_foreign_query() -> None:
    scene = sample("test", 0)
    assert explain_other_kind(scene.scene.image, scene.request) is None
    assert explain_other_kind(scene.scene.image, "the elephant") == OTHER_QUERY
    assert explain_other_kind(scene.scene.image[:8, :8] * 0 + 255, "the elephant") == OTHER_PICTURE
