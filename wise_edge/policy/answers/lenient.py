"""Reading JSON as policies write it: also with single quotes, trailing commas, round brackets, or cut short.

The work is linear in the text of an object: each character is looked at a fixed number of times.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")"""
    r"""|(?P<single>'(?:[^'\\]|\\.|'(?!\s*(?:[,:\]})]|$)))*'(?=\s*(?:[,:\]})]|$)))"""  # an apostrophe ends nothing
    r"""|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.])"""
    r"""|(?P<word>-?[A-Za-z]\w*)|(?P<mark>[\[\](){},:]))""",
    re.DOTALL,
)
_WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_NOT_NUMBERS = ("NaN", "Infinity", "-Infinity")
_CLOSING = {"[": "]", "(": ")"}
_DEEPEST = 10


class _CutShortError(Exception):
    """The text ends within an object."""


@dataclass
class ReadObject:
    """An object as it was read.

    Attributes:
        pairs: its keys and values in their order.
        end: index after it in the text.
        repairs: what was mended.
        inner: index of an object that is a value of this one, where reading stopped; -1 if there is none.
        reason: why it cannot be read; None if it can.
    """

    pairs: list[tuple[str, Any]] = field(default_factory=list)
    end: int = 0
    repairs: list[str] = field(default_factory=list)
    inner: int = -1
    reason: str | None = None


def read_object(text: str, start: int, most: int) -> ReadObject:
    """Read the object that begins at an index with `{`, of at most so many characters; never raise."""
    scanner = _Scanner(text, start + 1, min(len(text), start + most))
    found = scanner.found
    try:
        scanner.read_pairs()
    except _CutShortError:
        if scanner.stop < len(text):
            found.reason = f"the answer is longer than {most} characters"
        elif not found.pairs:
            found.reason = "the answer is not JSON"
        found.repairs.append("unfinished JSON")
    except ValueError as error:
        if found.pairs and text.find("}", scanner.place) < 0:
            found.repairs.append("unfinished JSON")  # words follow where the object was cut short
            scanner.place = len(text)
        else:
            found.reason = str(error)
    found.end = scanner.place
    return found


class _Scanner:
    def __init__(self, text: str, place: int, stop: int) -> None:
        self.found = ReadObject()
        self.place = place
        self.stop = stop
        self._text = text

    def read_pairs(self) -> None:
        """Read `"key": value, …}`."""
        kind, key = self._next()
        while (kind, key) != ("mark", "}"):
            if kind != "text" or self._next() != ("mark", ":"):
                raise ValueError("the answer is not JSON")
            value = self._value(*self._next(), 0)
            self.found.pairs.append((key, value))
            kind, key = self._separator("}")

    def _separator(self, closing: str) -> tuple[str, Any]:
        """Return what follows a comma, or the closing mark."""
        kind, mark = self._next()
        if (kind, mark) == ("mark", closing):
            return kind, mark
        if (kind, mark) != ("mark", ","):
            raise ValueError("the answer is not JSON")
        kind, mark = self._next()
        if (kind, mark) == ("mark", closing):
            self.found.repairs.append("trailing comma")
        return kind, mark

    def _value(self, kind: str, value: Any, depth: int) -> Any:
        if kind in ("text", "number", "word"):
            return value
        if value == "{":
            self.found.inner = self.place - 1
            raise ValueError("the answer is not JSON")
        if value not in _CLOSING:
            raise ValueError("the answer is not JSON")
        if depth == _DEEPEST:
            raise ValueError("the answer is nested too deeply")
        if value == "(":
            self.found.repairs.append("round brackets")
        closing, items = _CLOSING[value], []
        kind, item = self._next()
        while (kind, item) != ("mark", closing):
            items.append(self._value(kind, item, depth + 1))
            kind, item = self._separator(closing)
        return items

    def _next(self) -> tuple[str, Any]:
        """Return the kind and the value of the next token."""
        match = _TOKEN.match(self._text, self.place, self.stop)
        if match is None:
            rest = self._text[self.place : self.stop].lstrip()
            if not rest or rest[0] in "\"'" or (rest[0] in "-0123456789" and rest[1:].isdigit() | (len(rest) == 1)):
                raise _CutShortError
            raise ValueError("the answer is not JSON")
        kind = match.lastgroup or ""
        written = match[kind]
        if kind == "number" and match.end() == self.stop:
            raise _CutShortError  # more digits may have followed
        self.place = match.end()
        if kind == "single":
            self.found.repairs.append("single quotes")
            return "text", _unescape(written[1:-1].replace('\\"', '"').replace('"', '\\"').replace("\\'", "'"))
        if kind == "text":
            return kind, _unescape(written[1:-1])
        if kind == "number":
            return kind, _number(written)
        if kind == "word":
            if written in _NOT_NUMBERS:
                raise ValueError(f"{written} is not a coordinate")
            if written not in _WORDS:
                raise ValueError("the answer is not JSON")
            return kind, _WORDS[written]
        return kind, written


def _unescape(inner: str) -> str:
    """Return the text of a JSON string; an escape that JSON lacks stays as it is."""
    try:
        text: str = json.loads(f'"{inner}"', strict=False)
    except ValueError:
        return inner
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a character has no text


def _number(written: str) -> int | float:
    if not {".", "e", "E"} & {*written}:
        return int(written)
    if not math.isfinite(value := float(written)):
        raise ValueError(f"{written[:20]} is not a coordinate")
    return value
