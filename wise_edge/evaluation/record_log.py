"""The file that the records of an evaluation are appended to as they come.

Its first line holds the settings of the run, each further line a record. A run that was killed leaves whole lines and
at most one torn one, which is cut off when the run is resumed. Several processes write a file each; joined, they are
the file that one process would have written, but for the latencies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.files import atomic_write


class RecordLog:
    """The records of a run in order, each on disk before the next one is made.

    Nothing is written before the first record, so a run that cannot begin leaves no file.

    Args:
        path: the file; None keeps the records in memory alone.
        settings: what the records are made with.
        resume: go on with the file, where there is one; otherwise it is replaced.

    Raises:
        UsageError: the file to go on with has other settings or is damaged.
    """

    def __init__(self, path: Path | None, settings: Settings, *, resume: bool = False) -> None:
        self.records: list[MaskRecord] = []
        self._path = path
        self._settings = settings
        self._resumed = path is not None and resume and path.exists()
        self._stream: TextIO | None = None
        if path is not None and self._resumed:
            self.records = _cut_and_read(path, settings)

    def append(self, record: MaskRecord) -> None:
        """Add a record; raises `WiseEdgeError` where the disk takes no more."""
        self.records.append(record)
        if self._path is not None:
            self._write(self._path, _line(asdict(record)))

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._path is not None and error is None:
            self._write(self._path, "")  # a file without a record gets its settings
        if self._path is not None and self._stream is not None:
            with _explained(self._path), self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())

    def _write(self, path: Path, text: str) -> None:
        with _explained(path):
            if self._stream is None:
                self._stream = path.open(
                    "a" if self._resumed else "w", encoding="utf-8", buffering=1
                )  # a line at a time
                if self._stream.tell() == 0:
                    self._stream.write(_head(self._settings))
            self._stream.write(text)


def read_log(path: Path) -> tuple[Settings, list[MaskRecord]]:
    """Read a file of records; a torn last line is left out.

    Raises:
        UsageError: the file cannot be read, or is none that an evaluation wrote; the line says where.
    """
    settings, records = _parse(path, _whole_lines(path))
    if settings is None:
        raise UsageError(f"{path} holds no records; name a file that 'wise-edge evaluate --out' wrote")
    return settings, records


def write_log(path: Path, settings: Settings, records: Sequence[MaskRecord]) -> None:
    """Write records at once; a file that exists is replaced."""
    lines = (_line(asdict(record)) for record in records)
    atomic_write(path, "".join([_head(settings), *lines]).encode(), force=True)


def join_shards(paths: Sequence[Path], settings: Settings) -> list[MaskRecord] | None:
    """Join the records of all shards.

    Args:
        paths: the file of each shard, in order.
        settings: those of any of them.

    Returns:
        The records of all samples, in order; None while some are still to come.

    Raises:
        UsageError: a shard's file has other settings or is damaged.
    """
    records: list[MaskRecord] = []
    for shard, path in enumerate(paths):
        found, more = _parse(path, _whole_lines(path)) if path.exists() else (None, [])
        if found is None:
            return None
        _check_settings(path, found, replace(settings, shard=shard))
        records += more
    by_index = {record.index: record for record in records}
    return [by_index[index] for index in sorted(by_index)] if len(by_index) == settings.samples else None


def _cut_and_read(path: Path, settings: Settings) -> list[MaskRecord]:
    lines = _whole_lines(path)
    found, records = _parse(path, lines)
    if found is not None:
        _check_settings(path, found, settings)
    with _explained(path):
        os.truncate(path, sum(map(len, lines)))
    return records


def _check_settings(path: Path, found: Settings, wanted: Settings) -> None:
    if names := found.differences(wanted):
        was = ", ".join(f"{name} {getattr(found, name)}" for name in names)
        raise UsageError(f"{path} was made with other settings ({was}); use those, another --out, or --force")


def _whole_lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return [line for line in lines if line.endswith(b"\n")]


def _parse(path: Path, lines: Sequence[bytes]) -> tuple[Settings | None, list[MaskRecord]]:
    """Return settings and records; None and nothing where the run was killed before its first line was whole."""
    if not lines:
        return None, []
    number = 1
    try:
        settings = Settings(**json.loads(lines[0])["settings"])
        records = []
        for number, line in enumerate(lines[1:], 2):  # noqa: B007
            records.append(settings.record_class(**json.loads(line)))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}, line {number}, is none that 'wise-edge evaluate --out' wrote") from error
    return settings, records


def _head(settings: Settings) -> str:
    return _line({"settings": asdict(settings)})


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data) + "\n"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WiseEdgeError(f"cannot write {path}: {error.strerror}; mend that, then go on with --resume") from error
