"""What scoring reads in a completion, in the same way as the reference.

The first `{…}` anywhere in the text is the answer, the first `<think>…</think>` the concise text, and the first
`<d_think>…</d_think>` the detailed text; the texts include their tags. Each reader takes linear time, so no completion
can make scoring slow, and none raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wise_edge.geometry import Point
from wise_edge.policy.answers.completion import split_completion

FloatBox = tuple[float, float, float, float]

_SHAPES = {"bbox": 4, "points_1": 2, "points_2": 2}
_LARGEST_PX = 1_000_000  # no image is wider; the square of a larger number might overflow
_ANSWER_FORM = re.compile(r"\{[^{}]*bbox[^{}]*\}")
_TAGGED = re.compile(r"<(think|answer|d_think)>(?:(?!</\1>).)+</\1>")


@dataclass(frozen=True)
class Reading:
    """What scoring reads in a completion.

    Attributes:
        text: the complete text.
        has_answer: the first `{…}` is JSON with the three keys, each with a list of the right length.
        box: XYXY in pixels of the resized square image, not necessarily in order or inside; `None` if it is missing
            or not four numbers.
        points: column and row, pixels of the same image; `None` if one is missing.
        concise: the first `<think>…</think>` with its tags; empty if there is none.
        detailed: the first `<d_think>…</d_think>` with its tags; empty if there is none.
    """

    text: str
    has_answer: bool
    box: FloatBox | None
    points: tuple[Point, Point] | None
    concise: str
    detailed: str


@dataclass(frozen=True)
class ReadCompletion:
    """A completion and everything that is read in it.

    Attributes:
        text: the completion.
        rationale: its concise text as inference reads it, without tags; empty if there is none.
        scored: what scoring reads; a completion that repeats the prompt's placeholders is scored as an empty text.
    """

    text: str
    rationale: str
    scored: Reading


class CompletionReader:
    """Reads the completions of a batch, each once even if the batch is requested again.

    Args:
        placeholders: what a completion may not repeat, from `find_placeholders`.
    """

    def __init__(self, placeholders: Sequence[str]) -> None:
        self._placeholders = placeholders
        self._batch: dict[str, ReadCompletion] = {}

    def read(self, completions: Sequence[Any]) -> list[ReadCompletion]:
        """Read completions (texts or lists of chat messages); texts of the previous batch are not read again."""
        texts = [completion_text(completion) for completion in completions]
        self._batch = {text: self._batch.get(text) or self._read(text) for text in dict.fromkeys(texts)}
        return [self._batch[text] for text in texts]

    def _read(self, text: str) -> ReadCompletion:
        scored = read_completion("" if echoes(text, self._placeholders) else text)
        return ReadCompletion(text, split_completion(text).rationale or "", scored)


def read_completion(text: str) -> Reading:
    """Read what is scored in a completion; never raises."""
    fields = _first_object(text)
    has_answer = all(isinstance(fields.get(key), list) and len(fields[key]) == n for key, n in _SHAPES.items())
    first, second = _point(fields.get("points_1")), _point(fields.get("points_2"))
    points = (first, second) if first and second else None
    return Reading(text, has_answer, _box(fields.get("bbox")), points, _part(text, "think"), _part(text, "d_think"))


def completion_text(completion: Any) -> str:
    """Return the text of a completion: a text, or a list of chat messages whose content is a text or a list of parts.

    Lone surrogates, which tokenizers reject, become question marks.
    """
    if isinstance(completion, Mapping):
        completion = completion.get("content", completion.get("text"))
    if isinstance(completion, str):
        return completion.encode("utf-8", "replace").decode("utf-8")
    return "".join(completion_text(each) for each in completion or ())


def is_formatted(text: str, tags: Sequence[str]) -> bool:
    """Return whether a text consists of the tagged parts, in this order, separated by nothing but white space."""
    position = len(f"<{tags[0]}>")
    for ended, begun in pairwise(tags):
        seam = re.compile(rf"</{ended}>\s*<{begun}>").search(text, position)
        if seam is None:
            return False
        position = seam.end()
    end = f"</{tags[-1]}>"
    return text.startswith(f"<{tags[0]}>") and text.endswith(end) and position <= len(text) - len(end)


def find_placeholders(template_text: str) -> tuple[str, ...]:
    """Return what a prompt shows as a form to fill in: answers in braces and tagged parts that are not blank.

    White space is removed, as in `echoes`.
    """
    text = _squeeze(template_text)
    return tuple(match.group() for pattern in (_ANSWER_FORM, _TAGGED) for match in pattern.finditer(text))


def echoes(text: str, placeholders: Sequence[str]) -> bool:
    """Return whether a text repeats one of `find_placeholders`, ignoring white space."""
    squeezed = _squeeze(text) if placeholders else ""
    return any(placeholder in squeezed for placeholder in placeholders)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _part(text: str, tag: str) -> str:
    start = text.find(f"<{tag}>")
    end = text.find(f"</{tag}>", start)
    return text[start : end + len(tag) + 3] if 0 <= start < end else ""


def _first_object(text: str) -> dict[str, Any]:
    """Return the first non-empty `{…}`, up to the first closing brace, or an empty dict if it is not JSON."""
    start = text.find("{")
    while start >= 0 and text[start + 1 : start + 2] == "}":
        start = text.find("{", start + 2)
    end = text.find("}", start)
    if start < 0 or end < 0:
        return {}
    try:
        fields: dict[str, Any] = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return {}
    return fields


def _box(value: Any) -> FloatBox | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(item, (int, float)) and abs(item) <= _LARGEST_PX for item in value):
        return None
    x1, y1, x2, y2 = value
    return x1, y1, x2, y2


def _point(value: Any) -> Point | None:
    """Return the first two numbers of a list, truncated; numbers written as text count, as in the reference."""
    if not isinstance(value, list) or len(value) < 2:
        return None
    try:
        x, y = int(value[0]), int(value[1])
    except (TypeError, ValueError, OverflowError):
        return None
    return (x, y) if max(abs(x), abs(y)) <= _LARGEST_PX else None
