"""What scoring reads in a completion, in the same way as the reference.

The first `{…}` anywhere in the text is the answer, the first `<think>…</think>` the concise text, and the first
`<d_think>…</d_think>` the detailed text; the texts include their tags. An answer that is a list stands in the first
`<answer>…</answer>`. Each reader takes linear time, so no completion can make scoring slow, and none raises.
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
from wise_edge.policy.answers.form import BOX, BOX_POINTS, LABEL, NUMBERS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.training.wise.matching import FloatBox, FoundObject

_XY = AnswerFrame((1, 1))
_SHAPES = {"bbox": 4, "points_1": 2, "points_2": 2}
_LARGEST_PX = 1_000_000  # no image is wider; the square of a larger number might overflow
_TAGGED = re.compile(r"<(think|answer|d_think)>(?:(?!</\1>).)+</\1>")


@dataclass(frozen=True)
class Reading:
    """What scoring reads in a completion.

    Attributes:
        text: the complete text.
        has_answer: the first `{…}` is JSON with the three keys, each with a list of the right length; of a list, it is
            one, and all its objects can be read.
        box: XYXY in the frame of the answer, not necessarily in order or inside; `None` if it is missing or not four
            numbers.
        points: XY in the same frame; `None` if one is missing.
        concise: the first `<think>…</think>` with its tags; empty if there is none.
        detailed: the first `<d_think>…</d_think>` with its tags; empty if there is none.
        listed: the objects of an answer that is a list; `None` if it cannot be read or the form is another.
    """

    text: str
    has_answer: bool
    box: FloatBox | None
    points: tuple[Point, Point] | None
    concise: str
    detailed: str
    listed: tuple[FoundObject, ...] | None = None

    @property
    def objects(self) -> tuple[FoundObject, ...] | None:
        """What the answer has, in either form; `None` if it cannot be read."""
        if self.box is not None:
            return (FoundObject(self.box, self.points or ()),)
        return self.listed


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
        form: how answers are written.
        frame: what their numbers count.
    """

    def __init__(self, placeholders: Sequence[str], form: AnswerForm, frame: AnswerFrame) -> None:
        self._placeholders = placeholders
        self._form = form
        self._frame = frame
        self._batch: dict[str, ReadCompletion] = {}

    def read(self, completions: Sequence[Any]) -> list[ReadCompletion]:
        """Read completions (texts or lists of chat messages); texts of the previous batch are not read again."""
        texts = [completion_text(completion) for completion in completions]
        self._batch = {text: self._batch.get(text) or self._read(text) for text in dict.fromkeys(texts)}
        return [self._batch[text] for text in texts]

    def _read(self, text: str) -> ReadCompletion:
        text_scored = "" if echoes(text, self._placeholders) else text
        many = self._form.many
        scored = read_list(text_scored, self._form, self._frame) if many else read_completion(text_scored, self._frame)
        return ReadCompletion(text, split_completion(text).rationale or "", scored)


def read_completion(text: str, frame: AnswerFrame = _XY) -> Reading:
    """Read what is scored in a completion, whose numbers are in a frame; never raises."""
    fields = _first_object(text)
    has_answer = all(isinstance(fields.get(key), list) and len(fields[key]) == n for key, n in _SHAPES.items())
    first, second = (_point(fields.get(key), frame) for key in ("points_1", "points_2"))
    points = (first, second) if first and second else None
    box = _box(fields.get("bbox"), frame)
    return Reading(text, has_answer, box, points, _part(text, "think"), _part(text, "d_think"))


def read_list(text: str, form: AnswerForm, frame: AnswerFrame) -> Reading:
    """Read what is scored in a completion whose answer is a list; never raises.

    The list is JSON, of at most `MAX_OBJECTS` objects. Each has the form's keys with the right numbers of numbers;
    further keys are ignored, as in VisionReasoner's reward.
    """
    objects = _listed_objects(text, form, frame)
    return Reading(text, objects is not None, None, None, _part(text, "think"), _part(text, "d_think"), objects)


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


def find_placeholders(template_text: str, form: AnswerForm = BOX_POINTS) -> tuple[str, ...]:
    """Return what a prompt shows as a form to fill in: answers in braces and tagged parts that are not blank.

    White space is removed, as in `echoes`.
    """
    text = _squeeze(template_text)
    answers = re.compile(r"\{[^{}]*" + re.escape(form.box_key) + r"[^{}]*\}")
    return tuple(match.group() for pattern in (answers, _TAGGED) for match in pattern.finditer(text))


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


def _listed_objects(text: str, form: AnswerForm, frame: AnswerFrame) -> tuple[FoundObject, ...] | None:
    source = _part(text, "answer")
    start, end = source.find("["), source.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        items = json.loads(source[start : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list) or len(items) > MAX_OBJECTS:
        return None
    objects = [_listed_object(item, form, frame) for item in items]
    found = tuple(each for each in objects if each is not None)
    return found if len(found) == len(objects) else None


def _listed_object(item: Any, form: AnswerForm, frame: AnswerFrame) -> FoundObject | None:
    if not isinstance(item, dict):
        return None
    box, points = None, []
    for field in form.fields:
        value = item.get(field.key)
        if field.kind == LABEL:
            if not isinstance(value, str):
                return None
        elif not isinstance(value, list) or len(value) != NUMBERS[field.kind]:
            return None
        elif field.kind == BOX:
            box = _box(value, frame)
        else:
            point = _point(value, frame)
            if point is None:
                return None
            points.append(point)
    return None if box is None else FoundObject(box, tuple(points))


def _box(value: Any, frame: AnswerFrame) -> FloatBox | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(item, (int, float)) and abs(item) <= _LARGEST_PX for item in value):
        return None
    return frame.read_box(value)


def _point(value: Any, frame: AnswerFrame) -> Point | None:
    """Return the first two numbers of a list, truncated; numbers written as text count, as in the reference."""
    if not isinstance(value, list) or len(value) < 2:
        return None
    try:
        x, y = frame.read_point([int(value[0]), int(value[1])])
    except (TypeError, ValueError, OverflowError):
        return None
    return (x, y) if max(abs(x), abs(y)) <= _LARGEST_PX else None
