"""Parsing answers for scoring, without repairs."""

from __future__ import annotations

import json
from typing import Any

from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import BOX, LABEL, NUMBERS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import answer_source, find_objects, load_pairs


def parse_answer_strict(text: str, form: AnswerForm, frame: AnswerFrame) -> Answer:
    """Parse an answer for scoring, without repairs.

    Args:
        text: a completion, or the text of its answer; of a form with one object the first `{…}` counts.
        form: how answers are written.
        frame: what their numbers count.

    Raises:
        ValueError: the text is not JSON of the form with exactly its keys and integers, `0 <= x1 < x2 <= width`
            (likewise for y) and all points inside the frame.
    """
    source, _ = answer_source(text, split_completion(text))
    found = [source[start:end] for start, end in find_objects(source) if end > 0]
    if not form.many:
        if not found:
            raise ValueError("the answer has no {…}")
        return Answer((_read_object(found[0], form, frame),))
    start, end = source.find("["), source.rfind("]")
    if start < 0 or end < 0:
        raise ValueError("the answer has no […]")
    _check_list(source[start : end + 1])
    return Answer(tuple(_read_object(each, form, frame) for each in found))


def _check_list(text: str) -> None:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("the answer is not a list of objects")


def _read_object(text: str, form: AnswerForm, frame: AnswerFrame) -> AnsweredObject:
    pairs = load_pairs(text)
    fields = dict(pairs)
    if fields.keys() != {*form.keys} or len(pairs) != len(fields):
        raise ValueError(f"the keys of the answer are not exactly {', '.join(form.keys)}")
    width, height = frame.size
    box, points, label = (0, 0, 0, 0), [], None
    for field in form.fields:
        value = fields[field.key]
        if field.kind == LABEL:
            if not isinstance(value, str):
                raise ValueError(f"{field.key} is not text")
            label = value
            continue
        numbers = _integers(field.key, value, NUMBERS[field.kind])
        if field.kind == BOX:
            x1, y1, x2, y2 = box = frame.read_box(numbers)
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(f"{field.key} is empty, reversed or outside the image")
        else:
            x, y = frame.read_point(numbers)
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError("a point is outside the image")
            points.append((x, y))
    return AnsweredObject(box, tuple(points), label)


def _integers(key: str, value: Any, count: int) -> list[int]:
    if not isinstance(value, list) or len(value) != count or any(type(item) is not int for item in value):
        raise ValueError(f"{key} is not a list of {count} whole numbers")
    return value
