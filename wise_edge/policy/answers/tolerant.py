"""Parsing answers for serving: what has only one sensible meaning is repaired, and the repairs are listed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from wise_edge.geometry import Box, Point, clip_box, clip_point
from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.completion import Completion, split_completion
from wise_edge.policy.answers.form import NUMBERS, POINT, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.lenient import ReadObject, read_object
from wise_edge.policy.answers.reading import MAX_OBJECT_CHARACTERS, MAX_OBJECTS, answer_source

_NUMBER = r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?"
_NUMBER_TEXT = re.compile(rf"\s*{_NUMBER}\s*")
_NUMBERS_TEXT = re.compile(rf"\s*[\[(]?\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{1,9}}\s*[\])]?\s*")
_MOST_UNREADABLE = 200  # objects; each may take as many characters to read as one may have
_EMPTY_LIST = re.compile(r"\[\s*\]")
_NOTHING = re.compile(r"(?:```\w*)?\s*(?:\[\s*\]|[\"'`]?(?:none|null|nothing)[\"'`]?\.?)\s*(?:```)?", re.IGNORECASE)


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


def parse_answer(
    text: str, form: AnswerForm, frame: AnswerFrame, parts: Completion | None = None, most: int = MAX_OBJECTS
) -> ParsedAnswer:
    """Parse an answer for serving: repair what has only one sensible meaning, and never raise.

    Args:
        text: a completion, or the text of its answer.
        form: how answers are written; other keys are never guessed.
        frame: what their numbers count.
        parts: of the text, if it was split already.
        most: objects to read; further ones are left out, which `repairs` says.

    Returns:
        An answer inside the image and the list of repairs, or the reason why there is no answer.
    """
    repairs: list[str] = []
    try:
        answer = _Reader(form, frame, repairs).read(text, parts or split_completion(text, form), most)
    except ValueError as error:
        return ParsedAnswer(None, tuple(dict.fromkeys(repairs)), str(error))
    return ParsedAnswer(answer, tuple(dict.fromkeys(repairs)), None)


def objects_left_out(most: int) -> str:
    """Return the phrase for an answer of which only so many objects count."""
    return f"objects after the first {most} left out"


class _Reader:
    """Reads one answer and lists its repairs."""

    def __init__(self, form: AnswerForm, frame: AnswerFrame, repairs: list[str]) -> None:
        self._form = form
        self._frame = frame
        self._repairs = repairs

    def read(self, text: str, parts: Completion, most: int) -> Answer:
        source, untagged = answer_source(text, parts)
        objects = self._read_objects(source, most if self._form.many else 1)
        if not objects and not self._means_nothing(source):
            raise ValueError("the answer has no {…}")
        if untagged and "<answer>" in self._form.before:
            self._repairs.append("missing answer tags")
        return Answer(tuple(objects))

    def _read_objects(self, source: str, most: int) -> list[AnsweredObject]:
        """Return the objects of a list, or the one that a form without a list has."""
        many, objects, reasons = self._form.many, list[AnsweredObject](), list[str]()
        place, end = source.find("{"), 0
        before = source[: max(place, 0)]
        listed = "[" in before
        if "```" in before and "```" not in self._form.before:
            self._repairs.append("code fence")
        while place >= 0 and len(reasons) < _MOST_UNREADABLE:
            if len(objects) == most:
                if many or listed:
                    self._repairs.append(objects_left_out(most))
                break
            read = read_object(source, place, MAX_OBJECT_CHARACTERS)
            end = max(read.end, place + 1)
            if read.inner >= 0:
                self._repairs.append("an object around the answer")
                listed = listed or "[" in source[place : read.inner]
                place = read.inner
                continue
            if objects and "unfinished JSON" in read.repairs:
                self._repairs.append("unfinished JSON")  # a list that was cut short ends with its last complete object
                break
            try:
                objects.append(self._read(read))
            except ValueError as error:
                reasons.append(str(error))
                if not many:
                    break
            place = source.find("{", end)
        self._check_brackets(listed, "]" in source[end:], len(objects))
        if reasons:
            if not objects:
                raise ValueError(reasons[0])
            self._repairs.append("unreadable objects left out")
        return objects

    def _check_brackets(self, opened: bool, closed: bool, objects: int) -> None:
        if not objects:
            return
        if opened and not self._form.many:
            self._repairs.append("a list around the object")
        if self._form.many and not opened:
            self._repairs.append("no list around the objects")
        elif self._form.many and not closed:
            self._repairs.append("unfinished JSON")

    def _means_nothing(self, source: str) -> bool:
        empty = self._form.many and _EMPTY_LIST.search(source) is not None
        if not empty and _NOTHING.fullmatch(source.strip()):
            self._repairs.append("nothing, in other words")
            return True
        return empty

    def _read(self, read: ReadObject) -> AnsweredObject:
        self._repairs += read.repairs
        if read.reason is not None:
            raise ValueError(read.reason)
        fields = dict(reversed(read.pairs))
        if len(fields) < len(read.pairs):
            self._repairs.append("repeated keys ignored")
        return self._object(fields)

    def _object(self, fields: dict[str, Any]) -> AnsweredObject:
        form = self._form
        if fields.keys() - {*form.keys}:
            self._repairs.append("unknown keys ignored")
        if form.box_key not in fields:
            raise ValueError(f"the answer has no {form.box_key}")
        numbers = self._whole_numbers(form.box_key, fields[form.box_key], NUMBERS["box"])
        box = self._box(self._frame.read_box(numbers))
        points = [self._point(key, fields) for key in form.point_keys]
        center = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        known = next((point for point in points if point is not None), center)
        return AnsweredObject(box, tuple(point or known for point in points), self._label(fields))

    def _label(self, fields: dict[str, Any]) -> str | None:
        key = self._form.label_key
        if key is None:
            return None
        if not isinstance(label := fields.get(key), str):
            self._repairs.append(f"{key} unreadable" if key in fields else f"{key} missing")
            return None
        return label

    def _whole_numbers(self, key: str, value: Any, count: int) -> list[int]:
        if isinstance(value, str) and _NUMBERS_TEXT.fullmatch(value):
            self._repairs.append("numbers written as text")
            value = [float(each) if "." in each else int(each) for each in re.findall(_NUMBER, value)]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            self._repairs.append("nested list")
            value = value[0]
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"{key} is not a list of {count} numbers")
        return [self._whole_number(key, item) for item in value]

    def _whole_number(self, key: str, value: Any) -> int:
        if isinstance(value, str) and _NUMBER_TEXT.fullmatch(value):
            self._repairs.append("numbers written as text")
            value = float(value) if "." in value else int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{key} holds something that is not a number")
        if isinstance(value, float):
            self._repairs.append("fractions rounded")
            return math.floor(value + 0.5)
        return value

    def _box(self, written: Box) -> Box:
        left, top, right, bottom = written
        if left > right or top > bottom:
            self._repairs.append("reversed corners")
        ordered = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        box = clip_box(ordered, self._frame.size)
        if ordered[0] == ordered[2] or ordered[1] == ordered[3]:
            self._repairs.append("empty box widened")
        width, height = self._frame.size
        if min(ordered) < 0 or ordered[2] > width or ordered[3] > height:
            self._repairs.append("box clipped to the image")
        return box

    def _point(self, key: str, fields: dict[str, Any]) -> Point | None:
        if key not in fields:
            self._repairs.append(f"{key} missing")
            return None
        try:
            written = self._frame.read_point(self._whole_numbers(key, fields[key], NUMBERS[POINT]))
        except ValueError:
            self._repairs.append(f"{key} unreadable")
            return None
        point = clip_point(written, self._frame.size)
        if point != written:
            self._repairs.append(f"{key} clipped to the image")
        return point
