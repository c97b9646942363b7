"""Forms of answers for runtimes and clients that constrain or check text: a regular expression, a JSON schema."""

from __future__ import annotations

import re
from typing import Any

from wise_edge.policy.answers.course import Way, course_of
from wise_edge.policy.answers.form import BOX, LABEL, AnswerField, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame

_SPECIAL = re.compile(r"([\\^$.|?*+()\[\]{}])")
_CONTROL = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LABEL = r'([^"\\\n\r\t]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*'


def answer_pattern(form: AnswerForm, frame: AnswerFrame, *, rationale: bool) -> str:
    """Return a regular expression for completions that keep a form.

    A number has at most as many digits as the largest, and a list any number of objects.

    Args:
        form: how answers are written.
        frame: what their numbers count.
        rationale: whether `<think>…</think>` precedes the answer.
    """
    course = course_of(form)

    def value(way: Way) -> str:
        assert way.value is not None
        largest = course.largest(way.value, frame)
        return _LABEL if largest is None else f"(0|[1-9][0-9]{{0,{len(str(largest)) - 1}}})"

    into, *empty = course.opening
    pattern, way = _plain(into.text), into
    for *another, following in course.after:
        pattern += value(way)
        if another:  # the last value: from here the object is repeated from its second value on
            (again,) = another
            first = len(_plain(into.text) + value(into))
            pattern += f"({_plain(again.text)}{value(again)}{pattern[first:]})*"
        pattern += _plain(following.text)
        way = following
    pattern = "|".join([pattern, *(_plain(way.text) for way in empty)])
    pattern = f"({pattern})" if empty else pattern
    return f"<think>[^<]*</think>{pattern}" if rationale else pattern


def answer_schema(form: AnswerForm, frame: AnswerFrame) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of an answer's JSON, without what stands before and after it.

    Args:
        form: how answers are written.
        frame: what their numbers count.
    """
    item = {
        "type": "object",
        "properties": {field.key: _field_schema(field, frame) for field in form.fields},
        "required": list(form.keys),
        "additionalProperties": False,
    }
    whole: dict[str, Any] = {"type": "array", "items": item} if form.many else item
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": form.name, **whole}


def _field_schema(field: AnswerField, frame: AnswerFrame) -> dict[str, Any]:
    if field.kind == LABEL:
        return {"type": "string"}
    inside = 0 if field.kind == BOX else 1  # a point is a pixel, a box's edge lies between two
    numbers = [{"type": "integer", "minimum": 0, "maximum": largest - inside} for largest in frame.limits]
    numbers *= 2 if field.kind == BOX else 1
    return {"type": "array", "prefixItems": numbers, "minItems": len(numbers), "maxItems": len(numbers)}


def _plain(text: str) -> str:
    return "".join(_CONTROL.get(character, character) for character in _SPECIAL.sub(r"\\\1", text))
