"""Writes the SQLite files of rosbag2, in the schema of Iron and later.

https://github.com/ros2/rosbag2/blob/rolling/rosbag2_storage_sqlite3/src/rosbag2_storage_sqlite3/sqlite_storage.cpp
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from wise_edge.robot.recording.channels import METADATA_VERSION, Channel

_SCHEMA_VERSION = 4
_TABLES = f"""
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
    serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
    encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema VALUES ({_SCHEMA_VERSION}, '');
"""


class SqliteSink:
    """A .db3 file, open for writing; a `RecordingSink`."""

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(path)
        self._base.executescript(_TABLES)
        self._defined: set[str] = set()

    def add(self, channel: Channel) -> None:
        """Add a channel, by its id; a type without a definition gets none, as in bags from before Iron."""
        topic = channel.id, channel.topic, channel.type, channel.encoding, channel.qos, channel.digest
        self._base.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)", topic)
        if channel.definition and channel.type not in self._defined:
            self._defined.add(channel.type)
            row = channel.type, channel.definition_format, channel.definition, channel.digest
            self._base.execute("INSERT INTO message_definitions VALUES (NULL, ?, ?, ?, ?)", row)

    def write(self, channel: Channel, time_ns: int, data: bytes | memoryview) -> None:
        """Add a message."""
        self._base.execute("INSERT INTO messages VALUES (NULL, ?, ?, ?)", (channel.id, time_ns, data))

    def close(self, metadata: str) -> None:
        """Write the text of metadata.yaml and close the file."""
        self._base.execute("INSERT INTO metadata VALUES (NULL, ?, ?)", (METADATA_VERSION, metadata))
        self._base.commit()
        self._base.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._base.close()
