"""The answer of a policy: formatting it, extracting it from a completion, and parsing it strictly or tolerantly.

A completion is `<think>…</think> <answer>{…}</answer> <d_think>…</d_think>`; each prompt variant asks for some of these
parts. The answer is one JSON object of integers in pixels of the resized square image:
`{"bbox": [x1, y1, x2, y2], "points_1": [x, y], "points_2": [x, y]}`, the box XYXY and half-open.

Scoring parses strictly (`parse_answer_strict`), serving tolerantly (`parse_answer`): the tolerant parser lists its
repairs, never guesses other keys and never raises. Only the first answer of a completion counts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from wise_edge.files.documents import to_json
from wise_edge.geometry import Box, Point, Size, clip_box, clip_point, scale_box, scale_point

MAX_COMPLETION_CHARACTERS = 65_536
MAX_ANSWER_CHARACTERS = 1_000

_NUMBERS = {"bbox": 4, "points_1": 2, "points_2": 2}
_TAG = re.compile(r"<(/?)(think|answer|d_think)>")
_TRAILING_COMMA = re.compile(r",(?=\s*[\]}])")
_NUMBER_TEXT = re.compile(r"\s*[+-]?[0-9]{1,20}(\.[0-9]{1,20})?\s*")


@dataclass(frozen=True)
class Answer:
    """The object that a policy points at, in pixels of the resized square image.

    Attributes:
        box: XYXY, half-open.
        points: two pixels, column and row.
    """

    box: Box
    points: tuple[Point, Point]


@dataclass(frozen=True)
class Completion:
    """The parts of a completion, without tags and surrounding white space; None for a missing part.

    Attributes:
        rationale: text of `<think>`.
        answer_text: text of the first `<answer>`.
        detailed: text of `<d_think>`.
    """

    rationale: str | None
    answer_text: str | None
    detailed: str | None


@dataclass(frozen=True)
class ParsedAnswer:
    """The result of tolerant parsing: an answer, or the reason why there is none.

    Attributes:
        answer: an answer inside the image, or None.
        repairs: a short phrase for each kind of repair, in the order in which they were made.
        reason: one line if `answer` is None, else None.
    """

    answer: Answer | None
    repairs: tuple[str, ...]
    reason: str | None


def format_answer(answer: Answer) -> str:
    """Return an answer as the JSON text between the answer tags."""
    first, second = answer.points
    return to_json({"bbox": list(answer.box), "points_1": list(first), "points_2": list(second)})


def answer_in_square(box: Box, points: tuple[Point, Point], size: Size, side: int) -> Answer:
    """Map a box and two points of an image to the resized square.

    Args:
        box: XYXY, half-open, pixels of the image.
        points: column and row in pixels of the image, inside the box.
        size: width and height of the image, px.
        side: width and height of the square, px.

    Returns:
        An answer in pixels of the square, its points still inside the box after rounding.
    """
    target = (side, side)
    x1, y1, x2, y2 = scale_box(box, size, target)
    first, second = (
        (min(max(x, x1), x2 - 1), min(max(y, y1), y2 - 1)) for x, y in (scale_point(p, size, target) for p in points)
    )
    return Answer((x1, y1, x2, y2), (first, second))


def split_completion(text: str) -> Completion:
    """Split a completion into its parts.

    A part ends at its closing tag or, if that is missing, at the tag of the next part or the end of the text. If a part
    is repeated, the first one counts. Text beyond `MAX_COMPLETION_CHARACTERS` is ignored.
    """
    parts = _parts(text[:MAX_COMPLETION_CHARACTERS])
    return Completion(parts.get("think"), parts.get("answer"), parts.get("d_think"))


def parse_answer_strict(text: str, size: int) -> Answer:
    """Parse an answer for scoring, without repairs.

    Args:
        text: a completion, or the text of its answer; the first `{…}` counts.
        size: width and height of the resized square image in pixels.

    Raises:
        ValueError: the text is not JSON with exactly the three keys and integers, `0 <= x1 < x2 <= size` (likewise for
            y) and both points inside the image.
    """
    source, _ = _source(text, split_completion(text))
    start = source.find("{")
    end = source.find("}", start)
    if start < 0 or end < 0:
        raise ValueError("the answer has no {…}")
    pairs = _load(source[start : end + 1])
    fields = dict(pairs)
    if fields.keys() != _NUMBERS.keys() or len(pairs) != len(fields):
        raise ValueError(f"the keys of the answer are not exactly {', '.join(_NUMBERS)}")
    (x1, y1, x2, y2), first, second = (_integers(key, fields[key]) for key in _NUMBERS)
    if not (0 <= x1 < x2 <= size and 0 <= y1 < y2 <= size):
        raise ValueError("bbox is empty, reversed or outside the image")
    if not all(0 <= value < size for value in (*first, *second)):
        raise ValueError("a point is outside the image")
    return Answer((x1, y1, x2, y2), ((first[0], first[1]), (second[0], second[1])))


def parse_answer(text: str, size: int, parts: Completion | None = None) -> ParsedAnswer:
    """Parse an answer for serving: repair what has only one sensible meaning, and never raise.

    Args:
        text: a completion, or the text of its answer.
        size: width and height of the resized square image in pixels.
        parts: of the text, if it was split already.

    Returns:
        An answer inside the image and the list of repairs, or the reason why there is no answer.
    """
    repairs: list[str] = []
    try:
        answer = _read(text, size, repairs, parts or split_completion(text))
    except ValueError as error:
        return ParsedAnswer(None, tuple(dict.fromkeys(repairs)), str(error))
    return ParsedAnswer(answer, tuple(dict.fromkeys(repairs)), None)


def _parts(text: str) -> dict[str, str]:
    tags = [(match.group(2), bool(match.group(1)), match) for match in _TAG.finditer(text)]
    next_closed = [""] * (len(tags) + 1)
    for index in range(len(tags) - 1, -1, -1):
        name, closes, _ = tags[index]
        next_closed[index] = name if closes else next_closed[index + 1]
    parts: dict[str, str] = {}
    current, start = "", 0
    for index, (name, closes, match) in enumerate(tags):
        # Within a part that its own closing tag still ends, another opening tag is ordinary text.
        if (closes and name != current) or (not closes and current and next_closed[index] == current):
            continue
        if current:
            parts.setdefault(current, text[start : match.start()].strip())
        current, start = "" if closes else name, match.end()
    if current:
        parts.setdefault(current, text[start:].strip())
    return parts


def _source(text: str, parts: Completion) -> tuple[str, bool]:
    """Return the text that should hold the answer, and whether other parts have tags but the answer has none."""
    if parts.answer_text is not None:
        return parts.answer_text, False
    return text[:MAX_COMPLETION_CHARACTERS], parts.rationale is not None or parts.detailed is not None


def _read(text: str, size: int, repairs: list[str], parts: Completion) -> Answer:
    source, untagged = _source(text, parts)
    fields = _load_tolerant(_cut(source, repairs), repairs)
    if untagged:
        repairs.append("missing answer tags")
    if fields.keys() - _NUMBERS.keys():
        repairs.append("unknown keys ignored")
    if "bbox" not in fields:
        raise ValueError("the answer has no bbox")
    box = _repair_box(_whole_numbers("bbox", fields["bbox"], repairs), size, repairs)
    first, second = (_repair_point(key, fields, size, repairs) for key in ("points_1", "points_2"))
    center = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    return Answer(box, (first or second or center, second or first or center))


def _cut(source: str, repairs: list[str]) -> str:
    """Return the first `{…}`; if its end is missing, the part of it that is complete."""
    start = source.find("{")
    if start < 0:
        raise ValueError("the answer has no {…}")
    if "```" in source[:start]:
        repairs.append("code fence")
    end = source.find("}", start)
    if end < 0:
        repairs.append("unfinished JSON")
        end = source.rfind("]", start) + 1
        source = source[:end] + "}"
    if end - start >= MAX_ANSWER_CHARACTERS:
        raise ValueError(f"the answer is longer than {MAX_ANSWER_CHARACTERS} characters")
    return source[start : end + 1]


def _load_tolerant(text: str, repairs: list[str]) -> dict[str, Any]:
    if not _is_json(text) and "'" in text:
        text = text.replace("'", '"')
        repairs.append("single quotes")
    if not _is_json(text) and _TRAILING_COMMA.search(text):
        text = _TRAILING_COMMA.sub("", text)
        repairs.append("trailing comma")
    pairs = _load(text)
    fields = dict(reversed(pairs))
    if len(fields) < len(pairs):
        repairs.append("repeated keys ignored")
    return fields


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _load(text: str) -> list[tuple[str, Any]]:
    """Return the keys and values of a JSON object in their order in the text."""
    try:
        return list(json.loads(text, object_pairs_hook=list, parse_constant=_refuse, parse_float=_finite))
    except json.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is not a coordinate")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number[:20])


def _integers(key: str, value: Any) -> list[int]:
    if not isinstance(value, list) or len(value) != _NUMBERS[key] or any(type(item) is not int for item in value):
        raise ValueError(f"{key} is not a list of {_NUMBERS[key]} whole numbers")
    return value


def _whole_numbers(key: str, value: Any, repairs: list[str]) -> list[int]:
    if not isinstance(value, list) or len(value) != _NUMBERS[key]:
        raise ValueError(f"{key} is not a list of {_NUMBERS[key]} numbers")
    return [_whole_number(key, item, repairs) for item in value]


def _whole_number(key: str, value: Any, repairs: list[str]) -> int:
    if isinstance(value, str) and _NUMBER_TEXT.fullmatch(value):
        repairs.append("numbers written as text")
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} holds something that is not a number")
    if isinstance(value, float):
        repairs.append("fractions rounded")
        return math.floor(value + 0.5)
    return value


def _repair_box(numbers: list[int], size: int, repairs: list[str]) -> Box:
    left, top, right, bottom = numbers
    if left > right or top > bottom:
        repairs.append("reversed corners")
    ordered = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    box = clip_box(ordered, (size, size))
    if ordered[0] == ordered[2] or ordered[1] == ordered[3]:
        repairs.append("empty box widened")
    if min(ordered) < 0 or max(ordered) > size:
        repairs.append("box clipped to the image")
    return box


def _repair_point(key: str, fields: dict[str, Any], size: int, repairs: list[str]) -> Point | None:
    if key not in fields:
        repairs.append(f"{key} missing")
        return None
    try:
        x, y = _whole_numbers(key, fields[key], repairs)
    except ValueError:
        repairs.append(f"{key} unreadable")
        return None
    point = clip_point((x, y), (size, size))
    if point != (x, y):
        repairs.append(f"{key} clipped to the image")
    return point
