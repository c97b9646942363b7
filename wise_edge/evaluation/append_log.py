"""A file that a long run appends its records to, so that a run that was killed can be resumed.

All lines are JSON. The first holds the settings of the run, each further line one record. A killed run leaves complete
lines and at most one torn line at the end, which is cut off when the run is resumed. Whoever appends holds the lock on
the file from before its models are loaded (`wise_edge.files.locks.claiming`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeVar

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.documents import parse_json, read_lines, to_json
from wise_edge.mapping import from_mapping

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
R = TypeVar("R")
T = TypeVar("T", bound="DataclassInstance")

UNRECORDED = "unrecorded"
"""What identifies a run, in a log of an earlier version that does not say it."""

_LINE_BYTES = 64_000_000
"""More than the mask of any image takes."""


@dataclass(frozen=True)
class LogFormat(Generic[S, R]):
    """How the lines of a log become settings and records.

    Attributes:
        settings: dataclass of the settings, for `from_mapping`.
        to_record: turns the JSON of a line into a record; raises KeyError, TypeError, ValueError or `UsageError` if it
            cannot.
        to_json: the inverse.
        keys: names and values that no two records of a log share.
        command: the command that writes such logs, for error messages.
    """

    settings: type[S]
    to_record: Callable[[S, Any], R]
    to_json: Callable[[R], Mapping[str, Any]]
    keys: Callable[[R], Mapping[str, Hashable]]
    command: str

    def read(self, path: Path) -> tuple[S | None, list[R]]:
        """Read a log without its torn last line.

        Returns:
            The settings, None if the run was killed before it completed the first line, and the records.

        Raises:
            UsageError: the file cannot be read, or a line of it is invalid; the message names the line.
        """
        lines = _complete_lines(path)
        settings = self._read_settings(path, lines[:1])
        return settings, [] if settings is None else self._read_records(path, settings, lines[1:])

    def resume(self, path: Path, settings: S) -> list[R]:
        """Read a log, cut its torn last line off and return its records.

        Raises:
            UsageError: the log cannot be read, is damaged or was made with other settings.
        """
        lines = _complete_lines(path)
        found, records = self._read_settings(path, lines[:1]), []
        if found is not None:
            check_settings(path, found, settings)
            records = self._read_records(path, found, lines[1:])
        with _explained(path):
            os.truncate(path, sum(map(len, lines)))
        return records

    def text(self, settings: S, records: Iterable[R]) -> str:
        """Return a complete log."""
        return "".join([self.head(settings), *map(self.line, records)])

    def head(self, settings: S) -> str:
        """Return the first line of a log."""
        return to_json({"settings": asdict(settings)}) + "\n"

    def line(self, record: R) -> str:
        """Return the line of one record."""
        return to_json(self.to_json(record)) + "\n"

    def _read_settings(self, path: Path, first: list[bytes]) -> S | None:
        for line in first:
            with self._placed(path, 1):
                return read_fields(self.settings, parse_json(line, str(path))["settings"])
        return None

    def _read_records(self, path: Path, settings: S, lines: list[bytes]) -> list[R]:
        records, seen = [], dict[tuple[str, Hashable], int]()
        for number, line in enumerate(lines, 2):
            with self._placed(path, number):
                record = self.to_record(settings, parse_json(line, str(path)))
                for key in self.keys(record).items():
                    if (first := seen.setdefault(key, number)) != number:
                        raise _LineError(f"repeats the {key[0]} {key[1]} of line {first}; delete one of the two")
                records.append(record)
        return records

    @contextmanager
    def _placed(self, path: Path, number: int) -> Iterator[None]:
        """Tell what is wrong with a line, and where it is."""
        try:
            yield
        except _LineError as error:
            raise UsageError(f"{path}, line {number}, {error}") from error
        except (ValueError, TypeError, KeyError, UsageError) as error:
            raise UsageError(
                f"{path}, line {number}, was not written by '{self.command}'; choose another file or delete this one"
            ) from error


class _LineError(Exception):
    """What is wrong with a line, which who reads the log completes with the line's place."""


def read_fields(cls: type[T], data: Any) -> T:
    """Build a dataclass from the JSON of a line; what a newer version wrote is told as such."""
    if isinstance(data, dict):
        refuse_unknown(data, {field.name for field in fields(cls)})
    return from_mapping(cls, data)


def refuse_unknown(data: Mapping[str, Any], known: Collection[str]) -> None:
    """Reject the JSON of a line with keys that this version does not know."""
    if unknown := [key for key in data if key not in known]:
        raise _LineError(
            f"has {unknown[0]!r:.60}, which this version does not know; read it with the newer wise-edge that wrote it"
        )


class AppendLog(Generic[S, R]):
    """The records of a run in order; each is on disk before the next one is made.

    Nothing is written before the first record, so a run that fails to start leaves no file.

    Args:
        path: the file; None keeps the records in memory only.
        settings: what the records are made with.
        form: how settings and records are written.
        resume: continue an existing file; otherwise it is replaced.

    Raises:
        UsageError: the file to resume was made with other settings or is damaged.
    """

    def __init__(self, path: Path | None, settings: S, form: LogFormat[S, R], *, resume: bool = False) -> None:
        self._path = path
        self._settings = settings
        self._form = form
        self._resumed = path is not None and resume and path.exists()
        self._stream: TextIO | None = None
        self.records: list[R] = form.resume(path, settings) if path is not None and self._resumed else []

    def append(self, record: R) -> None:
        """Add a record; raises `WiseEdgeError` if it cannot be written."""
        if self._path is not None:
            self._write(self._path, self._form.line(record))
        self.records.append(record)

    def __enter__(self) -> AppendLog[S, R]:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._path is not None and error is None:
            self._write(self._path, "")  # a file without records still gets its settings
        if self._path is not None and self._stream is not None:
            with _explained(self._path), self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())

    def _write(self, path: Path, text: str) -> None:
        with _explained(path):
            if self._stream is None:
                self._stream = path.open(
                    "a" if self._resumed else "w", encoding="utf-8", buffering=1
                )  # flushes every line
                if self._stream.tell() == 0:
                    self._stream.write(self._form.head(self._settings))
            self._stream.write(text)


def differing_fields(a: S, b: S) -> list[str]:
    """Return the names of the fields in which two dataclasses of one type differ."""
    return [field.name for field in fields(a) if getattr(a, field.name) != getattr(b, field.name)]


def check_settings(path: Path, found: S, expected: S) -> None:
    """Raise `UsageError` if a log was made with other settings than expected."""
    names = differing_fields(found, expected)
    if known := [name for name in names if getattr(found, name) != UNRECORDED]:
        values = ", ".join(f"{name} {getattr(found, name)}" for name in known)
        raise UsageError(f"{path} was made with other settings ({values}); use those, or delete the file to start over")
    if names:
        raise UsageError(
            f"{path} does not say with which {', '.join(names)} it was made, since an earlier version wrote it; finish "
            "it with that version, or delete the file to start over"
        )


def _complete_lines(path: Path) -> list[bytes]:
    return [line for line in read_lines(path, _LINE_BYTES) if line.endswith(b"\n")]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WiseEdgeError(f"cannot write {path}: {error.strerror}; fix that, then resume with --resume") from error
