"""Reads the SQLite files of rosbag2, of all its schemas."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from shlex import quote as shell_quote
from typing import Any
from urllib.parse import quote

from wise_edge.errors import UsageError
from wise_edge.robot.recording.channels import Channel, Message

_STEPS_PER_BYTE, _SPARE_STEPS, _COUNTED_STEPS = 20, 50_000_000, 1_000_000
"""Steps of SQLite's machine: a row takes some ten, and at least ten bytes; it is read, counted and sorted."""


class SqliteFile:
    """A .db3 file, open for reading; a `RecordingFile`. Messages in its write-ahead log are read too.

    Raises:
        UsageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._base = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        self._base.text_factory = lambda text: text.decode(errors="replace")
        # A damaged table can lead back to itself, and a view can go on forever.
        files = path, path.with_name(f"{path.name}-wal")
        self._left = _STEPS_PER_BYTE * sum(file.stat().st_size for file in files if file.exists()) + _SPARE_STEPS
        self._base.set_progress_handler(self._count_steps, _COUNTED_STEPS)
        try:
            self.channels = self._read_channels()
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            self.close()
            raise self._damaged(error) from error
        self._by_id = {channel.id: channel for channel in self.channels}

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield the messages of some of its channels in the order of time."""
        ids = [channel.id for channel in channels]
        places = ", ".join("?" * len(ids))
        query = f"SELECT timestamp, topic_id, data FROM messages WHERE topic_id IN ({places}) ORDER BY timestamp, id"
        try:
            for time_ns, id, data in self._base.execute(query, ids):
                if not isinstance(time_ns, int) or not isinstance(data, bytes):  # columns of SQLite take any type
                    raise sqlite3.DatabaseError("a damaged message")
                yield time_ns, self._by_id[id], data
        except (sqlite3.Error, ValueError) as error:  # also a message of SQLite itself may be damaged
            raise self._damaged(error) from error

    def _count_steps(self) -> bool:
        """Return whether SQLite has done more than a whole file of this size can need."""
        self._left -= _COUNTED_STEPS
        return self._left < 0

    def _read_channels(self) -> list[Channel]:
        counts = dict(self._base.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"))
        definitions = {row["topic_type"]: row for row in self._rows("message_definitions")}
        return [
            _describe(row, counts.get(row["id"], 0), definitions.get(row["type"], {})) for row in self._rows("topics")
        ]

    def _rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table; none if there is no such table, as `message_definitions` before Iron."""
        if not self._base.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
            return []
        cursor = self._base.execute(f"SELECT * FROM {table} ORDER BY id")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _damaged(self, error: Exception) -> UsageError:
        name = shell_quote(str(self._path))
        repair = f"sqlite3 {name} .recover | sqlite3 repaired.db3"
        return UsageError(f"{self._path} cannot be read ({error}); if its recorder was killed, repair it: {repair}")


def _describe(topic: Mapping[str, Any], count: int, definition: Mapping[str, Any]) -> Channel:
    """Return a topic's channel; columns that a version of rosbag2 did not have yet are empty."""
    text = str(definition.get("encoded_message_definition") or "")
    return Channel(
        id=topic["id"],
        topic=str(topic["name"]),
        type=str(topic["type"]),
        encoding=str(topic["serialization_format"]),
        count=count,
        definition=text,
        definition_format=str(definition["encoding"]) if text else "",
        digest=str(topic.get("type_description_hash") or ""),
        qos=str(topic.get("offered_qos_profiles") or ""),
    )
