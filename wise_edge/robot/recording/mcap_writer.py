"""Writes MCAP files in the form of rosbag2, through the library mcap."""

from __future__ import annotations

from pathlib import Path

from wise_edge import __version__
from wise_edge.extras import require
from wise_edge.robot.recording.channels import Channel


class McapSink:
    """An MCAP file, open for writing; a `RecordingSink`."""

    def __init__(self, path: Path) -> None:
        writer = require("mcap.writer", "ros")
        self._file = path.open("xb")
        self._writer = writer.Writer(self._file, compression=writer.CompressionType.NONE)  # rosbag2's default
        self._writer.start(profile="ros2", library=f"wise-edge {__version__}")
        self._schemas: dict[tuple[str, str, str], int] = {}
        self._channels: dict[int, int] = {}

    def add(self, channel: Channel) -> None:
        """Add a channel, by its id."""
        schema = channel.type, channel.definition_format, channel.definition
        if schema not in self._schemas:
            name, encoding, text = schema
            self._schemas[schema] = self._writer.register_schema(name, encoding, text.encode())
        self._channels[channel.id] = self._writer.register_channel(
            channel.topic,
            channel.encoding,
            self._schemas[schema],
            {"offered_qos_profiles": channel.qos, "topic_type_hash": channel.digest},
        )

    def write(self, channel: Channel, time_ns: int, data: bytes | memoryview) -> None:
        """Add a message."""
        self._writer.add_message(self._channels[channel.id], time_ns, data, time_ns)

    def close(self, metadata: str) -> None:
        """Write the summary, with the text of metadata.yaml, and close the file."""
        with self._file:
            self._writer.add_metadata("rosbag2", {"serialized_metadata": metadata})
            self._writer.finish()

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()
