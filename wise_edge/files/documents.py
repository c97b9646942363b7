"""Read and write documents: JSON, lines of JSON, and YAML, whoever wrote them.

What a document may choose has a bound: its size, its depth, the length of its numbers, and how far YAML's aliases
expand. Numbers are finite, keys are not repeated (readers differ in which one they take), and text can be written as
UTF-8. What is read can therefore be printed, copied and written again.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.inputs import refuse_lfs_pointer

MOST_BYTES = 4_000_000
"""Of an ordinary document: a manifest, a config, a report. Parsed, JSON takes up to 30 times its size in memory."""
TOKENIZER_BYTES = 64_000_000
"""Of a tokenizer.json; one of 250,000 tokens has 33 MB."""
INDEX_BYTES = 64_000_000
"""Of the index of a model's weights; one of 100,000 experts' matrices has 9 MB."""
MOST_DEPTH = 64
"""Objects and lists inside one another; Python's own code for copying and printing fails at 1000 at most."""
_PIPE_BYTES = 16_000_000
_YAML_BYTES = 100_000  # PyYAML reads about as much in a second
_YAML_VALUES = 1_000_000
"""More than the metadata.yaml of a recording in thousands of files has; aliases repeat a value without a bound."""
_LONGEST_NUMBER = 64
"""Characters; transformers writes 10**30 for "no limit", a float64 needs 24."""
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_AGAIN = "copy or write it again"


def read_json(file: Path, most_bytes: int = MOST_BYTES, remedy: str = _AGAIN) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        file: a file, or a pipe that a shell hands over.
        most_bytes: a larger file is not read.
        remedy: what to do about a file that cannot be used, for messages.

    Raises:
        UsageError: the file cannot be read, is too large or a pointer of Git LFS, or `parse_json` rejects it.
    """
    return parse_json(read_text(file, most_bytes, remedy), str(file), remedy)


def read_json_list(file: Path, most_bytes: int = MOST_BYTES, remedy: str = _AGAIN) -> list[Any]:
    """Read a file that holds one JSON list; otherwise as `read_json`."""
    return parse_json_list(read_text(file, most_bytes, remedy), str(file), remedy)


def parse_json(text: str | bytes, where: str, remedy: str = _AGAIN) -> dict[str, Any]:
    """Parse the text of one JSON object.

    Args:
        text: bytes are UTF-8.
        where: file, and line if it is one of many, for messages.
        remedy: what to do about it, for messages.

    Raises:
        UsageError: it is not JSON, not an object, nested too deeply, repeats a key, has a number that is too long or
            not finite, or text that is not valid Unicode.
    """
    data = _parse(text, where, remedy)
    if not isinstance(data, dict):
        raise UsageError(f"{where} does not hold a JSON object; {remedy}")
    return data


def parse_json_list(text: str | bytes, where: str, remedy: str = _AGAIN) -> list[Any]:
    """Parse the text of one JSON list; otherwise as `parse_json`."""
    data = _parse(text, where, remedy)
    if not isinstance(data, list):
        raise UsageError(f"{where} does not hold a JSON list; {remedy}")
    return data


def _parse(text: str | bytes, where: str, remedy: str) -> Any:
    with _explained(where, remedy), _without_collector():
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        data = json.loads(
            text, object_pairs_hook=_to_dict, parse_int=_to_int, parse_float=_to_float, parse_constant=_refuse
        )
        if isinstance(data, (dict, list)):
            _check_depth(data)
        if _LONE_SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    return data


def read_lines(file: Path, most_bytes: int = MOST_BYTES, remedy: str = _AGAIN) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, without holding the file in memory.

    Args:
        file: of any size.
        most_bytes: of a line.
        remedy: what to do about a file that cannot be used, for messages.

    Raises:
        UsageError: the file cannot be read, is a pointer of Git LFS, or has a longer line.
    """
    with _readable(file, remedy), file.open("rb") as stream:
        number = 0
        while line := stream.readline(most_bytes + 1):
            number += 1
            if len(line) > most_bytes:
                raise UsageError(f"{file}, line {number}, is longer than {most_bytes:,} bytes; {remedy}")
            yield line


def read_yaml(file: Path, most_bytes: int = _YAML_BYTES, remedy: str = _AGAIN) -> Any:
    """Read a YAML document; bounds and errors as of `read_json` and `parse_yaml`."""
    return parse_yaml(read_text(file, most_bytes, remedy), str(file), remedy)


def parse_yaml(text: str, where: str, remedy: str = _AGAIN) -> Any:
    """Parse a YAML document; arguments and errors as of `parse_json`, but it may be of any of JSON's types.

    Raises:
        UsageError: see `parse_json`; also a value of another type, such as a date, or aliases that expand too far.
        MissingExtraError: PyYAML is not installed.
    """
    yaml = require("yaml", "train")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined, misc]
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _refuse_repeated([(key.tag, str(key.value)) for key, _ in node.value])
            return node

    with _explained(where, remedy):
        try:
            data = yaml.load(text, Loader)
        except RecursionError:
            raise
        except Exception as error:  # YAMLError, and whatever its constructors raise for a tag on another kind of text
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"{where} is not YAML ({reason}); {remedy}") from None
        check_values(data)
    return data


def check_values(data: Any) -> None:
    """Check what another reader made of a document, by the rules of `parse_yaml`; raises ValueError."""
    level, count = [data], 1
    for _ in range(MOST_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
            else:
                _check_scalar(value)
            if count + len(below) > _YAML_VALUES:
                raise ValueError(f"it has more than {_YAML_VALUES:,} values")
        level, count = below, count + len(below)
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")


def read_text(file: Path, most_bytes: int, remedy: str = _AGAIN) -> str:
    """Return a file's text, without a byte order mark; raises `UsageError` as `read_bytes` does, and if not UTF-8."""
    data = read_bytes(file, most_bytes, remedy)
    if data.startswith(_UTF16):
        raise UsageError(f"{file} is UTF-16, as PowerShell writes; save it as UTF-8")
    with _explained(str(file), remedy):
        return data.decode("utf-8-sig")


def read_bytes(file: Path, most_bytes: int, remedy: str = _AGAIN) -> bytes:
    """Return a file's content; raises `UsageError` if it cannot be read, is too large or a pointer of Git LFS."""
    with _readable(file, remedy), file.open("rb") as stream:
        most = min(most_bytes, max(os.fstat(stream.fileno()).st_size, _PIPE_BYTES))  # a pipe's size is 0
        data = stream.read(most + 1)
    if len(data) > most:
        raise UsageError(f"{file} has more than {most:,} bytes, which no such file needs; {remedy}")
    return data


def to_json(data: Any, indent: int | None = None, *, ensure_ascii: bool = True) -> str:
    """Return data as JSON that every reader takes; raises ValueError for a number that is not finite.

    What was not measured is None, with a reason beside it.
    """
    return json.dumps(data, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


@contextmanager
def _readable(file: Path, remedy: str) -> Iterator[None]:
    refuse_lfs_pointer(file)
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {str(file)[:200]}: {error.strerror}; {remedy}") from error
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"cannot read {str(file)[:200]!r}: {error}; {remedy}") from error


@contextmanager
def _explained(where: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise UsageError(f"{where} cannot be used: it is nested too deeply; {remedy}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON ({error}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text ({error}); {remedy}") from error
    except UnicodeEncodeError:
        raise UsageError(f"{where} cannot be used: it has half a character, a lone surrogate; {remedy}") from None
    except ValueError as error:
        raise UsageError(f"{where} cannot be used: {error}; {remedy}") from error


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector, which finds nothing in a growing document but takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        _refuse_repeated([key for key, _ in pairs])
    return data


def _refuse_repeated(keys: list[Any]) -> None:
    seen = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the key {str(key if isinstance(key, str) else key[1])[:80]!r} is repeated")
        seen.add(key)


def _to_int(text: str) -> int:
    return int(text) if len(text) <= _LONGEST_NUMBER else _refuse(text)


def _to_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) and len(text) <= _LONGEST_NUMBER else _refuse(text)


def _refuse(number: str) -> NoReturn:
    short = number if len(number) <= 20 else f"{number[:20]}…"
    raise ValueError(f"{short} is not a finite number of at most {_LONGEST_NUMBER} characters")


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, (bool, type(None))):
        return
    elif isinstance(value, int):
        if value.bit_length() > 3 * _LONGEST_NUMBER:
            raise ValueError(f"a number has more than {_LONGEST_NUMBER} digits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            _refuse(str(value))
    else:
        raise ValueError(f"a value is a {type(value).__name__}; put text into quotes")


def _check_depth(data: dict[str, Any] | list[Any]) -> None:
    nested, level = frozenset((dict, list)), [data]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            inside = value.values() if type(value) is dict else value
            if not nested.isdisjoint(map(type, inside)):
                below += [item for item in inside if type(item) in nested]
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
