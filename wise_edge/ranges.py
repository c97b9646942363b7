"""Ranges of dataclass fields, stated where a field is and checked where an object is made.

    @dataclass(frozen=True)
    class Settings(Checked):
        steps: Annotated[int, Range(1, 10**9)]

Whoever makes a `Settings` of no steps, from a recipe or in code, gets "steps: must be from 1 to 1,000,000,000, is 0".
Without a range, an integer must fit into 64 bits and a float must be finite, since arrays and JSON hold no others.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Collection, Mapping
from functools import cache
from numbers import Real
from typing import Annotated, Any

_LONGEST = 100
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _LONGEST


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a field may have: of a number itself, of text and collections their length.

    Attributes:
        least: smallest value.
        most: largest value.
        above: whether `least` itself is left out.
    """

    least: float
    most: float
    above: bool = False

    def refusal(self, value: Any) -> str | None:
        """Return what a value must be if it is not; None if it is."""
        size: Any = value if isinstance(value, Real) else len(value)  # numpy's numbers too
        if self.least <= size <= self.most and not (self.above and size == self.least):
            return None
        if size is not value:
            unit = "characters" if isinstance(value, str) else "entries"
            return f"must have {self.least:,} to {self.most:,} {unit}, has {size:,}"
        bounds = f"above {self.least:,} and at most" if self.above else f"from {self.least:,} to"
        return f"must be {bounds} {self.most:,}, is {shorten(value)}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The names that a field may have.

    Attributes:
        names: each of them.
    """

    names: Collection[str]

    def refusal(self, value: Any) -> str | None:
        """Return what a value must be if it is not; None if it is."""
        return None if value in self.names else f"choose one of {', '.join(self.names)}; it is {shorten(value)}"


INT64 = Range(-(2**63), 2**63 - 1)
Count = Annotated[int, Range(1, 10**9)]
Index = Annotated[int, Range(0, 10**12)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, 1e12, above=True)]
NotNegative = Annotated[float, Range(0, 1e12)]
Side = Annotated[int, Range(1, 4096)]
"""Side in px of the square that a model reads, whose pixels a runtime allocates: 1024 is usual."""
Width = Annotated[int, Range(1, 65_536)]
"""Of a layer of a network, in numbers."""
Depth = Annotated[int, Range(1, 1024)]
"""Layers of a network, heads of a layer."""
ChannelMean = Annotated[float, Range(-1e6, 1e6)]
ChannelDeviation = Annotated[float, Range(1e-6, 1e6)]
"""Mean and standard deviation of the pixels of a channel, by which images are normalized."""
Name = Annotated[str, Range(1, 1000)]
Text = Annotated[str, Range(0, 100_000)]


class Checked:
    """Base of dataclasses that check their fields when they are made; subclasses call `super().__post_init__()`."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, which begins with the field's name, for a value out of range."""
        for name, hint in field_hints(type(self), ranges=True).items():  # type: ignore[arg-type]
            _check(hint, getattr(self, name), name)


@cache
def field_hints(cls: type, ranges: bool = False) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields, with or without their ranges."""
    hints = typing.get_type_hints(cls, include_extras=ranges)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def shorten(value: Any) -> str:
    """Return the beginning of a value for a message of one line."""
    try:
        text = _short.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def label(key: Any) -> str:
    """Return a key for a message of one line: as it is, or its beginning."""
    return str(key) if str(key).isprintable() and len(str(key)) <= 100 else shorten(key)


def _check(hint: Any, value: Any, where: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        return
    if origin is Annotated:
        _check(arguments[0], value, where)
        for mark in arguments[1:]:
            if reason := mark.refusal(value):
                raise ValueError(f"{where}: {reason}")
    elif origin in (typing.Union, types.UnionType):
        _check(next(argument for argument in arguments if argument is not type(None)), value, where)
    elif origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        for place, (kind, item) in enumerate(zip(kinds, value, strict=False)):
            _check(kind, item, f"{where}.{place}")
    elif isinstance(value, Mapping) and len(arguments) == 2:
        for key, item in value.items():
            _check(arguments[1], item, f"{where}.{label(key)}")
    elif hint is int and (reason := INT64.refusal(value)):
        raise ValueError(f"{where}: {reason}")
    elif hint is float and not math.isfinite(value):
        raise ValueError(f"{where}: must be finite, is {value}")
