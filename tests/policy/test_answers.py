"""Answers round-trip; the strict parser repairs nothing; the tolerant one lists its repairs and never raises."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from squares import format_answer, one_object, parse_answer, parse_answer_strict
from wise_edge.policy.answers import tolerant
from wise_edge.policy.answers.answer import Answer, object_in_frame
from wise_edge.policy.answers.completion import MAX_COMPLETION_CHARACTERS, Completion, split_completion
from wise_edge.policy.answers.form import FORMS
from wise_edge.policy.answers.frame import AnswerFrame

SIZE = 112
ANSWER = one_object((10, 20, 40, 60), ((15, 25), (30, 50)))
TEXT = '{"bbox": [10, 20, 40, 60], "points_1": [15, 25], "points_2": [30, 50]}'
BOX = '"bbox": [10, 20, 40, 60]'
POINTS = '"points_1": [15, 25], "points_2": [30, 50]'


@st.composite
def sized_answers(draw: st.DrawFn) -> tuple[int, Answer]:
    size = draw(st.integers(1, 2000))
    edges = st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True).map(sorted)
    (x1, x2), (y1, y2) = draw(edges), draw(edges)
    inside = st.integers(0, size - 1)
    first, second = draw(st.tuples(inside, inside)), draw(st.tuples(inside, inside))
    return size, one_object((x1, y1, x2, y2), (first, second))


WRAPPINGS = {"code fence", "missing answer tags", "a list around the object", "objects after the first 1 left out"}
"""Repairs that the strict parser does not need, since it uses the first {…} anywhere."""

# Text that looks like an answer, so that fuzzing reaches beyond the first check.
FRAGMENTS = ["<think>", "</think>", "<answer>", "</answer>", "<d_think>", "</d_think>", "{", "}", "[", "]", ",", ":"]
FRAGMENTS += ['"bbox"', "'bbox'", '"points_1"', '"points_2"', "1", "-5", "7.5", "1e999", "NaN", "Infinity", "true"]
FRAGMENTS += ["null", '"12"', '"a"', "```json\n", "\\", "\ud800", "\x00", "９", " ", "\n", TEXT, BOX]
nearly_answers = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)
nearly_objects = st.dictionaries(
    st.sampled_from(["bbox", "points_1", "points_2", "box"]), json_values | st.lists(st.floats(), max_size=5)
).map(json.dumps)


def test_the_format_of_an_answer() -> None:
    assert format_answer(ANSWER) == TEXT


@given(sized_answers())
def test_answers_round_trip_through_both_parsers(sized: tuple[int, Answer]) -> None:
    size, answer = sized
    for text in (format_answer(answer), f"<think>a</think><answer>{format_answer(answer)}</answer>"):
        assert parse_answer_strict(text, size) == answer
        parsed = parse_answer(text, size)
        assert (parsed.answer, parsed.repairs, parsed.reason) == (answer, (), None)


@given(st.text() | nearly_answers | nearly_objects, st.integers(1, 1000))
@example("{" * 100_000, SIZE)
@example('{"bbox": ' + "[" * 900 + "}", SIZE)
@example('{"bbox": ' + "[" * 100_000 + "}", SIZE)
@example('{"bbox": [' + "9" * 900 + ", 1, 2, 3]}", SIZE)
@example('{"bbox": [' + "9" * 9_000 + ", 1, 2, 3]}", SIZE)
def test_no_text_breaks_the_parsers(text: str, size: int) -> None:
    parsed = parse_answer(text, size)
    assert (parsed.answer is None) == (parsed.reason is not None)
    if parsed.reason is not None:
        assert parsed.reason and "\n" not in parsed.reason and len(parsed.reason) < 120
    if parsed.answer is not None and parsed.answer.objects:
        x1, y1, x2, y2 = parsed.answer.objects[0].box
        assert 0 <= x1 < x2 <= size and 0 <= y1 < y2 <= size
        assert all(
            type(value) is int and 0 <= value < size for point in parsed.answer.objects[0].points for value in point
        )
    try:
        strict = parse_answer_strict(text, size)
    except ValueError:
        return
    assert parsed.answer == strict
    assert set(parsed.repairs) <= WRAPPINGS


REPAIRED = {
    "trailing comma": (f'{{{BOX}, "points_1": [15, 25,], "points_2": [30, 50],}}', ("trailing comma",)),
    "single quotes": (TEXT.replace('"', "'"), ("single quotes",)),
    "code fence": (f"```json\n{TEXT}\n```", ("code fence",)),
    "quotes and comma": (f"{{{BOX}, {POINTS},}}".replace('"', "'"), ("single quotes", "trailing comma")),
    "reversed corners": (f'{{"bbox": [40, 20, 10, 60], {POINTS}}}', ("reversed corners",)),
    "fractions": (f'{{"bbox": [9.5, 20.4, 39.51, 60], {POINTS}}}', ("fractions rounded",)),
    "numbers as text": (f'{{"bbox": ["10", "20", " 40", "60"], {POINTS}}}', ("numbers written as text",)),
    "unfinished": (TEXT[:-1], ("unfinished JSON",)),
    "unknown key": (f'{{{BOX}, {POINTS}, "label": "ring"}}', ("unknown keys ignored",)),
    "repeated key": (f'{{{BOX}, {POINTS}, "bbox": [1, 2, 3, 4]}}', ("repeated keys ignored",)),
    "no tags": (f"<think>a</think>{TEXT}", ("missing answer tags",)),
    "prose": (f"The answer is {TEXT}, I think.", ()),
    "unclosed tag": (f"<think>a</think><answer>{TEXT}", ()),
    "second answer": (f'<answer>{TEXT}</answer><answer>{{"bbox": [1, 2, 3, 4]}}</answer>', ()),
}


@pytest.mark.parametrize(("text", "repairs"), REPAIRED.values(), ids=REPAIRED.keys())
def test_text_with_one_meaning_is_repaired(text: str, repairs: tuple[str, ...]) -> None:
    parsed = parse_answer(text, SIZE)
    assert parsed.answer == ANSWER
    assert parsed.repairs == repairs


@pytest.mark.parametrize(
    ("box", "read", "repairs"),
    [
        ("[-5, 20, 400, 60]", (0, 20, 112, 60), ("box clipped to the image",)),
        ("[10, 20, 10, 60]", (10, 20, 11, 60), ("empty box widened",)),
        ("[112, 112, 112, 112]", (111, 111, 112, 112), ("empty box widened",)),
        ("[500, 20, 10, 60]", (10, 20, 112, 60), ("reversed corners", "box clipped to the image")),
        ("[500, 500, 600, 600]", (111, 111, 112, 112), ("box clipped to the image",)),
    ],
)
def test_boxes_are_repaired(box: str, read: tuple[int, ...], repairs: tuple[str, ...]) -> None:
    parsed = parse_answer(f'{{"bbox": {box}, {POINTS}}}', SIZE)
    assert parsed.answer is not None
    assert parsed.answer.objects[0].box == read
    assert parsed.repairs == repairs


@pytest.mark.parametrize(
    ("points", "read", "repairs"),
    [
        ('"points_1": [15, 25]', ((15, 25), (15, 25)), ("points_2 missing",)),
        ('"points_2": [30, 50]', ((30, 50), (30, 50)), ("points_1 missing",)),
        ('"points_1": [15, 25], "points_2": [30]', ((15, 25), (15, 25)), ("points_2 unreadable",)),
        ('"points_1": null, "points_2": "x"', ((25, 40), (25, 40)), ("points_1 unreadable", "points_2 unreadable")),
        ('"points_1": [-1, 25], "points_2": [30, 112]', ((0, 25), (30, 111)), None),
        ('"points_1": [0, 0], "points_2": [0, 0]', ((0, 0), (0, 0)), ()),
    ],
)
def test_points_are_repaired(points: str, read: tuple[tuple[int, int], ...], repairs: tuple[str, ...] | None) -> None:
    parsed = parse_answer(f"{{{BOX}, {points}}}", SIZE)
    assert parsed.answer is not None
    assert parsed.answer.objects[0].points == read
    assert parsed.repairs == (
        ("points_1 clipped to the image", "points_2 clipped to the image") if repairs is None else repairs
    )


def test_points_stay_in_a_box_that_rounding_moves() -> None:
    frame = AnswerFrame((100, 100))
    for left in range(0, 1900, 7):
        box = (left, left, left + 5, left + 5)
        found = object_in_frame(box, ((left, left), (left + 4, left + 4)), (1920, 1920), frame)
        x1, y1, x2, y2 = found.box
        assert all(x1 <= x < x2 and y1 <= y < y2 for x, y in found.points)


def test_an_answer_cut_short_keeps_what_is_complete() -> None:
    parsed = parse_answer(f'<answer>{{{BOX}, "points_1": [15, 25], "points_2": [3', SIZE)
    assert parsed.answer == one_object((10, 20, 40, 60), ((15, 25), (15, 25)))
    assert parsed.repairs == ("unfinished JSON", "points_2 missing")


UNREADABLE = {
    "": "has no {…}",
    "I cannot find it.": "has no {…}",
    "<answer></answer>" + TEXT: "has no {…}",
    f"{{{POINTS}}}": "has no bbox",
    f'{{"box": [1, 2, 3, 4], {POINTS}}}': "has no bbox",
    f'{{"bbox": [1, 2, 3], {POINTS}}}': "not a list of 4 numbers",
    '{"bbox": [[1, 2], [3, 4]]}': "not a list of 4 numbers",
    '{"bbox": [1, 2, 3, true]}': "not a number",
    '{"bbox": [1, 2, 3, "four"]}': "not a number",
    '{"bbox": [1, 2, 3, NaN]}': "NaN is not a coordinate",
    '{"bbox": [1, 2, 3, -Infinity]}': "-Infinity is not a coordinate",
    '{"bbox": [1, 2, 3, 1e999]}': "1e999 is not a coordinate",
    f"{{{BOX} {POINTS}}}": "not JSON",
    "{{}}": "not JSON",
    "{" + BOX + " " * 1000 + "}": "longer than 1000 characters",
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.items())
def test_unreadable_text_has_a_reason(text: str, reason: str) -> None:
    parsed = parse_answer(text, SIZE)
    assert parsed.answer is None
    assert parsed.reason is not None and reason in parsed.reason


@pytest.mark.parametrize(
    "text",
    [
        *UNREADABLE,
        *(
            text
            for text, repairs in REPAIRED.values()
            if repairs and repairs not in (("code fence",), ("missing answer tags",))
        ),
        f'{{"bbox": [10, 20, 10, 60], {POINTS}}}',
        f'{{"bbox": [-1, 20, 40, 60], {POINTS}}}',
        f'{{"bbox": [10, 20, 40, 113], {POINTS}}}',
        f'{{{BOX}, "points_1": [15, 112], "points_2": [30, 50]}}',
        f'{{{BOX}, "points_1": [15, 25], "points_2": [-1, 50]}}',
        f'{{{BOX}, "points_1": [15.0, 25], "points_2": [30, 50]}}',
        f'{{{BOX}, "points_1": [true, 25], "points_2": [30, 50]}}',
        f'{{{BOX}, "points_1": [15, 25]}}',
    ],
)
def test_the_strict_parser_repairs_nothing(text: str) -> None:
    with pytest.raises(ValueError):
        parse_answer_strict(text, SIZE)


def test_the_strict_parser_uses_the_first_braces_anywhere() -> None:
    assert parse_answer_strict(f"<think>a</think> see {TEXT}", SIZE) == ANSWER
    assert parse_answer_strict(f"<answer>```json\n{TEXT}\n```</answer>", SIZE) == ANSWER


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think> a </think><answer>b</answer><d_think>c</d_think>", ("a", "b", "c")),
        ("<think>a</think>\n<answer>b", ("a", "b", None)),
        ("<think>a", ("a", None, None)),
        ("<think>a<answer>b</answer>", ("a", "b", None)),
        ("<think>a<answer>b</answer><think>c</think>", ("a", "b", None)),
        ("<think>the <answer> tag</think><answer>b</answer>", ("the <answer> tag", "b", None)),
        ("<answer>b</answer><answer>c</answer>", (None, "b", None)),
        ("</think>b<answer></answer>", (None, "", None)),
        ("plain words", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_completions_are_split_into_parts(text: str, parts: tuple[str | None, ...]) -> None:
    assert split_completion(text) == Completion(*parts)


words = st.text(alphabet=st.characters(exclude_characters="<"), max_size=20).map(str.strip)


@given(words, words, words)
def test_completions_round_trip(rationale: str, answer: str, detailed: str) -> None:
    text = f"<think>{rationale}</think>\n<answer>{answer}</answer> <d_think>{detailed}</d_think>"
    assert split_completion(text) == Completion(rationale, answer, detailed)


def executed_lines(text: str) -> int:
    """Return how many lines of the module run to parse and split a text, which measures work without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line" and "/policy/answers/" in frame.f_code.co_filename
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        for form in FORMS.values():
            tolerant.parse_answer(text, form, AnswerFrame((SIZE, SIZE)))
        split_completion(text)
    finally:
        sys.settrace(previous)
    return count


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "<think>",
            "<answer>",
            "<answer></think>",
            "{",
            "[",
            "```",
            '{"bbox":[1,',
            "},",
            "\ud83d",
            '"',
            "'",
            "{'",
            '{"a":{',
        ),
        *('{"bbox_2d":[1,2,3,4]}', "{'bbox_2d': 'a' b', ", "```json\n", '{"a":1 ', "[]", "{'a ' ", "(", "\\"),
    ],
)
def test_work_grows_linearly_and_stops_at_the_limit(unit: str) -> None:
    half, full = (unit * (size // len(unit)) for size in (4_000, 8_000))
    assert (
        executed_lines(full) <= 2.5 * executed_lines(half) + 100
    )  # an object of 1,000 characters counts at either end

    longest = (unit * MAX_COMPLETION_CHARACTERS)[:MAX_COMPLETION_CHARACTERS]
    assert executed_lines(10 * longest) == executed_lines(longest)
