"""The log of an evaluation's records, and how the logs of several processes become one.

Each process writes its own file. Joined, they are the file that one process would have written, except for latencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.evaluation.append_log import AppendLog, LogFormat, check_settings, read_fields
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.files.writing import atomic_write


def _to_record(settings: Settings, data: Any) -> MaskRecord:
    record = read_fields(settings.record_class, data)
    if record.index not in range(settings.shard, settings.samples, settings.shards):
        raise ValueError(f"index {record.index} is not of this share of the samples")
    return record


_FORMAT = LogFormat[Settings, MaskRecord](
    Settings, _to_record, asdict, lambda record: {"index": record.index, "id": record.id}, "wise-edge evaluate --out"
)

RecordLog = AppendLog[Settings, MaskRecord]


def open_log(path: Path | None, settings: Settings, *, resume: bool = False) -> RecordLog:
    """Open the log of an evaluation, see `AppendLog`."""
    return AppendLog(path, settings, _FORMAT, resume=resume)


def read_log(path: Path) -> tuple[Settings, list[MaskRecord]]:
    """Read a log without its torn last line.

    Raises:
        UsageError: the file cannot be read, or 'wise-edge evaluate' did not write it; the message names the line.
    """
    settings, records = _FORMAT.read(path)
    if settings is None:
        raise UsageError(f"{path} has no records; pass a file that 'wise-edge evaluate --out' wrote")
    return settings, records


def write_log(path: Path, settings: Settings, records: Sequence[MaskRecord]) -> None:
    """Write a complete log at once; an existing file, which this process holds, is replaced."""
    atomic_write(path, _FORMAT.text(settings, records).encode(), force=True, held=True)


def join_shards(paths: Sequence[Path], settings: Settings) -> list[MaskRecord] | None:
    """Join the records of all shards.

    Args:
        paths: the log of each shard, in order.
        settings: those of any shard.

    Returns:
        The records of all samples in order; None while some are missing.

    Raises:
        UsageError: the log of a shard was made with other settings or is damaged.
    """
    records: list[MaskRecord] = []
    for shard, path in enumerate(paths):
        found, more = _FORMAT.read(path) if path.exists() else (None, [])
        if found is None:
            return None
        check_settings(path, found, replace(settings, shard=shard))
        records += more
    # Each log has only indices of its share, each once.
    return sorted(records, key=lambda record: record.index) if len(records) == settings.samples else None
