"""Building frozen dataclasses from mappings, such as YAML recipes and the JSON files of a bundle."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from wise_edge.errors import UsageError
from wise_edge.ranges import field_hints, label, shorten

T = TypeVar("T")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
"""Numbers such as 1e-4, which YAML 1.1 reads as text because they have no decimal point."""


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from a mapping; reject unknown keys and values of the wrong type.

    A class with older forms has a class method `upgrade`, which returns a mapping in the present one or raises
    ValueError.

    Args:
        cls: The dataclass. Its fields may be bool, int, float, str, Any, `X | None`, tuples, string-keyed mappings
            and dataclasses, each with the marks of `wise_edge.ranges`. In a union of dataclasses a mapping makes the
            first; `upgrade` can make another.
        mapping: The values; a missing key keeps its default.
        where: Dotted prefix for error messages, for example "optimizer.".

    Raises:
        UsageError: A key is unknown or missing, a value has the wrong type, or `__post_init__` raised ValueError.
    """
    if not isinstance(mapping, Mapping):
        raise UsageError(f"{where.rstrip('.: ') or cls.__name__}: {shorten(mapping)} is not a mapping")
    if upgrade := getattr(cls, "upgrade", None):
        try:
            mapping = upgrade(mapping)
        except ValueError as error:
            raise UsageError(f"{where}{error}") from error
    hints = field_hints(cls)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise UsageError(f"{where}{label(key)}: unknown key{suggestion(str(key), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise UsageError(f"{where}{name}: missing")
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}{error}") from error


def suggestion(key: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for an unknown key that is nearly a known one, else nothing."""
    import difflib

    close = difflib.get_close_matches(key[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def without_version(mapping: Mapping[str, Any], known: int) -> dict[str, Any]:
    """Return the entries of a mapping but its version, which may be missing; raises ValueError for another version."""
    if (version := mapping.get("version", known)) != known or isinstance(version, bool):
        raise ValueError(f"version: is {shorten(version)}, this wise-edge knows {known}; update wise-edge")
    return {key: value for key, value in mapping.items() if key != "version"}


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        inner = next((kind for kind in kinds if type(value) is kind), kinds[0])
        return None if value is None else _convert(inner, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, typing.cast("type[Any]", hint)):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast("type[Any]", hint), value, f"{where}.")
    if getattr(origin, "__name__", None) == "ndarray" and isinstance(value, origin):  # by name: help imports no numpy
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{label(key)}") for key, item in value.items()}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and (number or (isinstance(value, str) and _EXPONENT.fullmatch(value))):
        try:
            return float(value)
        except OverflowError:
            raise UsageError(f"{where}: {shorten(value)} is too large") from None
    if hint in (bool, int, str) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise UsageError(f"{where}: {shorten(value)} is not {'a mapping' if dataclasses.is_dataclass(hint) else wanted}")


def _convert_tuple(arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise UsageError(f"{where}: needs {len(arguments)} values, has {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(hint, item, f"{where}.{i}") for i, (hint, item) in enumerate(pairs))
