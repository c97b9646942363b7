"""Reads the bags of ROS 1, through rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from shlex import quote

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.robot.recording.channels import ROS1, Channel, Message


class Ros1File:
    """A .bag file, open for reading; a `RecordingFile`.

    Raises:
        UsageError: it cannot be read.
        MissingExtraError: rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        rosbag1 = require("rosbags.rosbag1", "ros")
        self._reader = rosbag1.Reader(path)
        try:
            self._reader.open()
        except Exception as error:  # for invalid files, rosbags raises many kinds
            raise self._damaged(error) from error
        self._connections = {connection.id: connection for connection in self._reader.connections}
        self.channels = [
            Channel(found.id, found.topic, found.msgtype, ROS1, found.msgcount) for found in self._connections.values()
        ]

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield the messages of some of its channels in the order of time."""
        by_id = {channel.id: channel for channel in channels}
        try:
            for connection, time_ns, data in self._reader.messages([self._connections[id] for id in by_id]):
                yield time_ns, by_id[connection.id], data
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UsageError:
        repair = f"rosbag reindex {quote(str(self._path))}"
        return UsageError(f"{self._path} cannot be read ({error}); if its recorder was killed, repair it: {repair}")
