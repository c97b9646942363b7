"""Reads the bags of ROS 1, through rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.native.loading import BoundedFile
from wise_edge.robot.recording.channels import ROS1, Channel, Message
from wise_edge.robot.recording.unpacking import unpack_bz2, unpack_lz4


class Ros1File:
    """A .bag file, open for reading; a `RecordingFile`.

    Raises:
        UsageError: it cannot be read.
        MissingExtraError: rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._reader = _make_reader(path)
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


class _BoundedPath:
    """What rosbags needs of a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        return self._path.exists()

    def open(self, _: str) -> BoundedFile:
        return BoundedFile(self._path)


def _make_reader(path: Path) -> Any:
    """Return rosbags' reader with bounds on what it decompresses and on how often its index lists a chunk."""
    module = require("rosbags.rosbag1.reader", "ros")
    bounded = {
        module.decompressors["bz2"]: unpack_bz2,
        module.decompressors["lz4"]: unpack_lz4,
    }

    class Reader(module.Reader):  # type: ignore[name-defined, misc]
        def read_chunk_info(self) -> Any:
            found = super().read_chunk_info()
            places = self.__dict__.setdefault("places", set())
            if found.pos in places:
                raise module.ReaderError("a chunk is listed twice")
            places.add(found.pos)
            return found

        def read_chunk(self) -> Any:
            found = super().read_chunk()
            return found._replace(decompressor=bounded.get(found.decompressor, found.decompressor))

    return Reader(_BoundedPath(path))
