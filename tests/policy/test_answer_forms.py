"""Answers of every form as policies write them in life, and what a form may be."""

from __future__ import annotations

import json
import re
import string
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wise_edge.errors import UsageError
from wise_edge.mapping import from_mapping
from wise_edge.policy.answers.answer import Answer, AnsweredObject, format_answer
from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINT_LIST, BOX_POINTS, FORMS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.named import find_form
from wise_edge.policy.answers.pattern import answer_pattern, answer_schema
from wise_edge.policy.answers.strict import parse_answer_strict
from wise_edge.policy.answers.tolerant import parse_answer

FRAME = AnswerFrame((840, 840))
BOX, POINT = (10, 100, 200, 210), (30, 110)
ITEM = '{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}'
SECOND = '{"bbox_2d": [225,296,706,786], "point_2d": [302,410]}'
MUG = '{"bbox_2d": [10, 100, 200, 210], "label": "mug"}'
ONE = '{"bbox": [10,100,200,210], "points_1": [30,110], "points_2": [35,180]}'
LABELS = [
    "mug",
    "",
    'the "big" mug',
    "man's hat",
    "{a} [b]",
    "back\\slash",
    "}, {",
    "é 日本 🙂",
    "two\nlines",
    "a: 'b', c",
]


def boxes(answer: Answer | None) -> list[tuple[int, ...]]:
    assert answer is not None
    return [item.box for item in answer.objects]


LISTS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "one": (f"<think>one</think><answer>[{ITEM}]</answer>", 1, ()),
    "two": (f"<think>two</think>\n<answer>[{ITEM}, {SECOND}]</answer>", 2, ()),
    "none": ("<think>none is there</think><answer>[]</answer>", 0, ()),
    "none with room": ("<answer>[ \n]</answer>", 0, ()),
    "the word": ("<answer>None</answer>", 0, ("nothing, in other words",)),
    "the word, quoted": ('<answer>"none".</answer>', 0, ("nothing, in other words",)),
    "the word, fenced": ("<answer>```json\nnull\n```</answer>", 0, ("nothing, in other words",)),
    "an object": (f"<answer>{ITEM}</answer>", 1, ("no list around the objects",)),
    "lines of objects": (f"<answer>{ITEM}\n{SECOND}</answer>", 2, ("no list around the objects",)),
    "fenced": (f"<answer>```json\n[{ITEM}]\n```</answer>", 1, ("code fence",)),
    "wrapped": (f'<answer>{{"objects": [{ITEM}, {SECOND}]}}</answer>', 2, ("an object around the answer",)),
    "cut between": (f"<answer>[{ITEM}, {SECOND}", 2, ("unfinished JSON",)),
    "cut at a comma": (f"<answer>[{ITEM}, ", 1, ("unfinished JSON",)),
    "cut within": (f"<answer>[{ITEM}, {SECOND[:40]}", 1, ("unfinished JSON",)),
    "cut within the first": (f"<answer>[{ITEM[:40]}", 1, ("unfinished JSON", "point_2d missing")),
    "one without a box": (f'<answer>[{{"point_2d": [1,2]}}, {ITEM}]</answer>', 1, ("unreadable objects left out",)),
    "a broken one": (f'<answer>[{{"bbox_2d": [1 2]}}, {ITEM}]</answer>', 1, ("unreadable objects left out",)),
    "round brackets": (f"<answer>[{ITEM.replace('[', '(').replace(']', ')')}]</answer>", 1, ("round brackets",)),
    "a rationale with brackets": (f"<think>a {{b}} [c]</think><answer>[{ITEM}]</answer>", 1, ()),
    "no tags": (f"<think>a [b] {{c}}</think>[{ITEM}]", 1, ("missing answer tags",)),
    "bare": (f"[{ITEM}]", 1, ()),
}


@pytest.mark.parametrize(("text", "objects", "repairs"), LISTS.values(), ids=LISTS)
def test_lists_of_boxes_and_points(text: str, objects: int, repairs: tuple[str, ...]) -> None:
    parsed = parse_answer(text, BOX_POINT_LIST, FRAME)

    assert boxes(parsed.answer) == [BOX, (225, 296, 706, 786)][:objects]
    assert parsed.repairs == repairs
    if not set(repairs) - {"code fence", "missing answer tags"} and objects:
        assert parse_answer_strict(text.replace("a [b] {c}", ""), BOX_POINT_LIST, FRAME) == parsed.answer


@pytest.mark.parametrize("text", ["", "There is no mug in the picture.", "<answer></answer>", "<answer>[</answer>"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_words_are_no_answer(text: str, form: AnswerForm) -> None:
    parsed = parse_answer(text, form, FRAME)

    assert (parsed.answer, parsed.reason) == (None, "the answer has no {…}")


FENCES = {
    "as trained": (f"```json\n[\n\t{MUG}\n]\n```", ()),
    "another fence": (f"```\n[{MUG}]\n```", ()),
    "no fence": (f"[{MUG}]", ()),
    "words around": (f"Here it is:\n```json\n[\n\t{MUG}\n]\n```\nAnything else?", ()),
    "code in the rationale": (f'<think>Not ```json\n[{{"a": 1}}]\n```.</think>```json\n[\n\t{MUG}\n]\n```', ()),
    "no list": (f"```json\n{MUG}\n```", ("no list around the objects",)),
    "Python": (f"```json\n[{MUG}]\n```".replace('"', "'"), ("single quotes",)),
    "answer tags": (f"<answer>[{MUG}]</answer>", ()),
}


@pytest.mark.parametrize(("text", "repairs"), FENCES.values(), ids=FENCES)
def test_lists_of_boxes_and_labels(text: str, repairs: tuple[str, ...]) -> None:
    parsed = parse_answer(text, BOX_LABEL_LIST, FRAME)

    assert parsed.answer == Answer((AnsweredObject(BOX, (), "mug"),))
    assert parsed.repairs == repairs


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("write", [json.dumps, repr], ids=["JSON", "Python"])
def test_labels_are_kept(label: str, write: Any) -> None:
    text = f"[{{'bbox_2d': [10, 100, 200, 210], 'label': {write(label)}}}, {MUG}]"

    answer = parse_answer(text, BOX_LABEL_LIST, FRAME).answer

    assert answer is not None
    assert [item.label for item in answer.objects] == [label, "mug"]


def test_labels_that_are_no_text_of_json_are_read() -> None:
    for written, label in ((r'"a\_b"', r"a\_b"), ('"a\nb"', "a\nb"), (r'"\ud83d"', "�"), ("'a 'b' c'", "a 'b' c")):
        answer = parse_answer(f'[{{"bbox_2d": [1,2,3,4], "label": {written}}}]', BOX_LABEL_LIST, FRAME).answer
        assert answer is not None and answer.objects[0].label == label


OBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "as trained": (f"<think>x</think><answer>{ONE}</answer>", ()),
    "fractions": (f"<answer>{ONE.replace('10,100,200,210', '10.4,99.6,200.0,210.2')}</answer>", ("fractions rounded",)),
    "nested": (f"<answer>{ONE.replace('[10,100,200,210]', '[[10,100,200,210]]')}</answer>", ("nested list",)),
    "text": (ONE.replace("[10,100,200,210]", '"[10,100,200,210]"'), ("numbers written as text",)),
    "bare text": (ONE.replace("[10,100,200,210]", '"10, 100, 200, 210"'), ("numbers written as text",)),
    "a list": (f"<answer>[{ONE}]</answer>", ("a list around the object",)),
    "wrapped": (f'<answer>{{"answer": {ONE}}}</answer>', ("an object around the answer",)),
    "several": (f"<answer>[{ONE}, {ONE}]</answer>", ("objects after the first 1 left out", "a list around the object")),
}


@pytest.mark.parametrize(("text", "repairs"), OBJECTS.values(), ids=OBJECTS)
def test_single_objects(text: str, repairs: tuple[str, ...]) -> None:
    parsed = parse_answer(text, BOX_POINTS, FRAME)

    assert parsed.answer == Answer((AnsweredObject(BOX, (POINT, (35, 180))),))
    assert parsed.repairs == repairs


@pytest.mark.parametrize("text", ["[]", "None", "null", " [ ] "])
def test_a_form_of_one_object_may_be_told_that_there_is_none(text: str) -> None:
    parsed = parse_answer(f"<think>x</think><answer>{text}</answer>", BOX_POINTS, FRAME)

    assert (parsed.answer, parsed.repairs) == (Answer(()), ("nothing, in other words",))
    with pytest.raises(ValueError, match="has no"):
        parse_answer_strict(f"<answer>{text}</answer>", BOX_POINTS, FRAME)


def test_objects_beyond_a_limit_are_left_out() -> None:
    parsed = parse_answer(f"[{', '.join([ITEM] * 200)}]", BOX_POINT_LIST, FRAME, most=3)

    assert boxes(parsed.answer) == [BOX] * 3
    assert parsed.repairs == ("objects after the first 3 left out",)


def test_objects_that_cannot_be_read_are_passed_over_within_a_bound() -> None:
    assert parse_answer("[" + "{' " * 50 + f"{ITEM}]", BOX_POINT_LIST, FRAME).answer is not None
    assert parse_answer("[" + "{' " * 5_000 + f"{ITEM}]", BOX_POINT_LIST, FRAME).answer is None


objects = st.builds(
    lambda x, y, label: AnsweredObject((x[0], y[0], x[1], y[1]), ((x[0], y[0]), (x[1] - 1, y[0])), label),
    *[st.lists(st.integers(0, 840), min_size=2, max_size=2, unique=True).map(sorted)] * 2,
    st.text(st.characters(codec="utf-8"), max_size=12),
)


@given(st.lists(objects, max_size=4), st.sampled_from(sorted(FORMS)), st.sampled_from(["xy", "yx"]))
def test_answers_round_trip(items: list[AnsweredObject], name: str, order: str) -> None:
    form, frame = FORMS[name], AnswerFrame((840, 900), order)
    items = items if form.many else (items or [AnsweredObject((1, 2, 3, 4), ((1, 2), (2, 2)))])[:1]
    answer = Answer(
        tuple(
            replace(item, points=item.points[: len(form.point_keys)], label=item.label if form.label_key else None)
            for item in items
        )
    )
    answer = Answer(tuple(replace(i, label=i.label or "") if form.label_key else i for i in answer.objects))
    text = form.before + format_answer(answer, form, frame) + form.after

    parsed = parse_answer(text, form, frame)

    assert parse_answer_strict(text, form, frame) == answer
    assert (parsed.answer, parsed.repairs) == (answer, ())
    jsonschema.validate(json.loads(format_answer(answer, form, frame)), answer_schema(form, frame))
    if not any(set(item.label or "") & {*map(chr, range(32)), *"\x7f\x85\u2028\u2029"} for item in answer.objects):
        assert re.fullmatch(answer_pattern(form, frame, rationale=False), text)
        assert re.fullmatch(answer_pattern(form, frame, rationale=True), f"<think>a</think>{text}")


NEARLY = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ITEM,
    MUG,
    ONE,
    '"bbox_2d"',
    "'",
    '"',
    "\\",
    "1",
    "(",
    ")",
    "None",
    "```",
    "\ud83d",
]


@given(
    st.lists(st.sampled_from(NEARLY), max_size=20).map("".join) | st.text(string.printable),
    st.sampled_from(sorted(FORMS)),
)
def test_no_text_breaks_the_parsers(text: str, name: str) -> None:
    parsed = parse_answer(text, FORMS[name], FRAME)
    assert (parsed.answer is None) == (parsed.reason is not None)
    for item in parsed.answer.objects if parsed.answer else ():
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= 840 and 0 <= y1 < y2 <= 840
        (item.label or "").encode()
    try:
        strict = parse_answer_strict(text, FORMS[name], FRAME)
    except ValueError:
        return
    assert parsed.answer == strict


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_schema_is_one_and_refuses_what_is_no_answer(form: AnswerForm) -> None:
    schema = answer_schema(form, AnswerFrame((100, 50), "yx"))

    jsonschema.Draft202012Validator.check_schema(schema)
    good = {form.box_key: [50, 100, 0, 0]} | {key: [49, 99] for key in form.point_keys}
    good |= {form.label_key: "a"} if form.label_key else {}
    bad = [good | {form.box_key: box} for box in ([51, 0, 0, 0], [0, 101, 0, 0], [0, 0, 0], [0.5, 0, 0, 0])]
    bad += [good | {"other": 1}, {key: value for key, value in good.items() if key != form.box_key}]
    bad += [good | {key: [50, 0]} for key in form.point_keys]
    valid = jsonschema.Draft202012Validator(schema).is_valid
    wrap = (lambda item: [item]) if form.many else (lambda item: item)
    assert valid(wrap(good))
    assert not any(valid(wrap(each)) for each in bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version: is 2, this wise-edge knows 1; update wise-edge"),
        ({"fields": [{"key": "a", "kind": "box"}] * 2}, "fields: two have the key 'a'"),
        ({"fields": [{"key": "a", "kind": "point"}]}, "needs one box and at most one label"),
        ({"fields": [{"key": 'a"b', "kind": "box"}]}, "has a quote"),
        ({"fields": [{"key": "Kästchen", "kind": "box"}]}, "not printable ASCII"),
        ({"fields": [{"key": "a", "kind": "circle"}]}, "choose one of box, point, label"),
        ({"after_key": " = "}, "after_key: is ' = '; JSON has ':' there"),
        ({"between_objects": "\n"}, "between_objects: is '\\n'; JSON has ',' there"),
        ({"empty_list": "none"}, "empty_list: is 'none'; JSON has '[]' there"),
        ({"after": "]"}, "after: ']' also stands within an answer"),
        ({"kind": "list"}, "kind: unknown key"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "form.json"
    file.write_text(json.dumps(asdict(BOX_POINT_LIST) | {"version": 1}))
    assert find_form(str(file)) == BOX_POINT_LIST
    file.write_text(json.dumps(asdict(BOX_POINT_LIST) | change))

    with pytest.raises(UsageError, match=re.escape(message)) as error:
        find_form(str(file))

    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_forms_have_names() -> None:
    assert find_form("box-point-list") is BOX_POINT_LIST
    with pytest.raises(UsageError, match="unknown form 'boxes'; choose one of box-points, box-point-list"):
        find_form("boxes")
    with pytest.raises(UsageError, match=r"no/form\.json"):
        find_form("no/form.json")
    assert str(BOX_POINT_LIST) == "box-point-list: a list of objects with bbox_2d, point_2d"
    assert from_mapping(AnswerForm, json.loads(json.dumps(asdict(BOX_LABEL_LIST)))) == BOX_LABEL_LIST
