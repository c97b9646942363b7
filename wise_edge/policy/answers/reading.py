"""Finding the JSON of an answer in a completion: what the strict and the tolerant parser share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from wise_edge.policy.answers.completion import MAX_COMPLETION_CHARACTERS, Completion

MAX_OBJECT_CHARACTERS = 1_000
MAX_OBJECTS = 100
"""Objects of an answer that are read unless told otherwise."""


def answer_source(text: str, parts: Completion) -> tuple[str, bool]:
    """Return the text that should hold the answer, and whether other parts have tags but the answer has none."""
    if parts.answer_text is not None:
        return parts.answer_text, False
    return text[:MAX_COMPLETION_CHARACTERS], parts.rationale is not None or parts.detailed is not None


def find_objects(source: str) -> Iterator[tuple[int, int]]:
    """Yield the first and past-the-end index of each `{…}` in a text; the end is -1 for one that is not closed.

    Objects have no objects inside them. A brace within a JSON string does not count.
    """
    start = source.find("{")
    while start >= 0:
        end = _object_end(source, start)
        yield start, end
        if end < 0:
            return
        start = source.find("{", end)


def load_pairs(text: str) -> list[tuple[str, Any]]:
    """Return the keys and values of a JSON object in their order in the text.

    Raises:
        ValueError: it is none, or holds a number that is no coordinate.
    """
    try:
        return list(json.loads(text, object_pairs_hook=list, parse_constant=_refuse, parse_float=_finite))
    except json.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def _object_end(source: str, start: int) -> int:
    """Return the index after the brace that closes an object; of an unbalanced quote, after the first brace at all."""
    quoted, place = False, start
    while place < len(source):
        character = source[place]
        if character == "\\" and quoted:
            place += 1
        elif character == '"':
            quoted = not quoted
        elif character == "}" and not quoted:
            return place + 1
        place += 1
    return source.find("}", start) + 1 or -1


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is not a coordinate")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number[:20])
