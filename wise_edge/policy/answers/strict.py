"""Parsing answers for scoring, without repairs."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import BOX, LABEL, NUMBERS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import answer_source


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
    source, _ = answer_source(text, split_completion(text, form))
    bracket = "[" if form.many else "{"
    if (start := source.find(bracket)) < 0:
        raise ValueError(f"the answer has no {'[…]' if form.many else '{…}'}")
    value, end = _load(source, start)
    if not form.many:
        return Answer((_read_object(value, form, frame),))
    if "{" in source[end:]:
        raise ValueError("the answer goes on after its list")
    return Answer(tuple(_read_object(each, form, frame) for each in value))


class _Pairs(list[tuple[str, Any]]):
    """Keys and values of a JSON object in their order in the text."""


def _load(source: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at an index, and the index after it."""
    try:
        return _DECODER.raw_decode(source, start)
    except json.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is not a coordinate")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number[:20])


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_refuse, parse_float=_finite)


def _read_object(pairs: Any, form: AnswerForm, frame: AnswerFrame) -> AnsweredObject:
    if not isinstance(pairs, _Pairs):
        raise ValueError("the answer is not a list of objects")
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
