"""A file that a long run appends its records to, so that a run that was killed can be resumed.

All lines are JSON. The first holds the settings of the run, each further line one record. A killed run leaves complete
lines and at most one torn line at the end, which is cut off when the run is resumed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeVar

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.documents import parse_json, to_json
from wise_edge.files.inputs import refuse_special
from wise_edge.mapping import from_mapping

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
R = TypeVar("R")


@dataclass(frozen=True)
class LogFormat(Generic[S, R]):
    """How the lines of a log become settings and records.

    Attributes:
        settings: dataclass of the settings, for `from_mapping`.
        to_record: turns the JSON of a line into a record; raises KeyError, TypeError or ValueError if it cannot.
        to_json: the inverse.
        command: the command that writes such logs, for error messages.
    """

    settings: type[S]
    to_record: Callable[[S, Any], R]
    to_json: Callable[[R], Mapping[str, Any]]
    command: str

    def read(self, path: Path) -> tuple[S | None, list[R]]:
        """Read a log without its torn last line.

        Returns:
            The settings, None if the run was killed before it completed the first line, and the records.

        Raises:
            UsageError: the file cannot be read, or a line of it is invalid; the message names the line.
        """
        return self._parse(path, _complete_lines(path))

    def resume(self, path: Path, settings: S) -> list[R]:
        """Read a log, cut its torn last line off and return its records.

        Raises:
            UsageError: the log cannot be read, is damaged or was made with other settings.
        """
        lines = _complete_lines(path)
        found, records = self._parse(path, lines)
        if found is not None:
            check_settings(path, found, settings)
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

    def _parse(self, path: Path, lines: list[bytes]) -> tuple[S | None, list[R]]:
        settings, records, number = None, [], 1
        try:
            for number, line in enumerate(lines, 1):  # noqa: B007
                data = parse_json(line, str(path))
                if settings is None:
                    settings = from_mapping(self.settings, data["settings"])
                else:
                    records.append(self.to_record(settings, data))
        except (ValueError, TypeError, KeyError, UsageError) as error:
            raise UsageError(
                f"{path}, line {number}, was not written by '{self.command}'; name another file or delete this one"
            ) from error
        return settings, records


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
    if names := differing_fields(found, expected):
        values = ", ".join(f"{name} {getattr(found, name)}" for name in names)
        raise UsageError(f"{path} was made with other settings ({values}); use those, or delete the file to start over")


def _complete_lines(path: Path) -> list[bytes]:
    refuse_special(path)
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return [line for line in lines if line.endswith(b"\n")]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WiseEdgeError(f"cannot write {path}: {error.strerror}; fix that, then resume with --resume") from error
