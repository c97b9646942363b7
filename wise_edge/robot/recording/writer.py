"""Writes a rosbag2: one file and its metadata.yaml.

https://github.com/ros2/rosbag2/blob/rolling/rosbag2_storage/include/rosbag2_storage/yaml.hpp
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wise_edge.robot.recording.channels import METADATA_VERSION, Channel, RecordingSink
from wise_edge.robot.recording.mcap_writer import McapSink
from wise_edge.robot.recording.qos import normalize_qos, to_yaml
from wise_edge.robot.recording.sqlite_writer import SqliteSink

_SINKS: dict[str, tuple[str, type[McapSink] | type[SqliteSink]]] = {
    "mcap": (".mcap", McapSink),
    "sqlite3": (".db3", SqliteSink),
}
STORAGES = tuple(_SINKS)
"""Names of the storages that can be written."""


class RecordingWriter:
    """A rosbag2 that is written; a context manager.

    Args:
        folder: an existing folder for its files.
        name: of the file, without its suffix.
        storage: one of `STORAGES`.
    """

    def __init__(self, folder: Path, name: str, storage: str) -> None:
        suffix, sink = _SINKS[storage]
        self._folder, self._file, self._storage = folder, f"{name}{suffix}", storage
        self._sink: RecordingSink = sink(folder / self._file)
        self._channels: list[Channel] = []
        self._qos: list[list[dict[str, Any]]] = []
        self._counts: list[int] = []
        self._first_ns, self._last_ns = (1 << 63) - 1, 0

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self._sink.abort()
            return
        information = self._describe()
        self._sink.close(to_yaml(information))
        text = to_yaml({"rosbag2_bagfile_information": information})
        (self._folder / "metadata.yaml").write_text(text, encoding="utf-8")

    def add(self, channel: Channel) -> Channel:
        """Add a channel and return it as it is written, with an id and QoS profiles of this version."""
        profiles = normalize_qos(channel.qos)
        added = replace(channel, id=len(self._channels) + 1, qos=to_yaml(profiles) if profiles else "")
        self._sink.add(added)
        self._channels.append(added)
        self._qos.append(profiles)
        self._counts.append(0)
        return added

    def write(self, channel: Channel, time_ns: int, data: bytes | memoryview) -> None:
        """Add a message to a channel that `add` returned."""
        self._sink.write(channel, time_ns, data)
        self._counts[channel.id - 1] += 1
        self._first_ns, self._last_ns = min(self._first_ns, time_ns), max(self._last_ns, time_ns)

    def _describe(self) -> dict[str, Any]:
        first = {"nanoseconds_since_epoch": self._first_ns}
        duration = {"nanoseconds": max(0, self._last_ns - self._first_ns)}
        count = sum(self._counts)
        topics = [
            {
                "topic_metadata": {
                    "name": channel.topic,
                    "type": channel.type,
                    "serialization_format": channel.encoding,
                    "offered_qos_profiles": qos,
                    "type_description_hash": channel.digest,
                },
                "message_count": of_topic,
            }
            for channel, qos, of_topic in zip(self._channels, self._qos, self._counts, strict=True)
        ]
        file = {"path": self._file, "starting_time": first, "duration": duration, "message_count": count}
        return {
            "version": METADATA_VERSION,
            "storage_identifier": self._storage,
            "duration": duration,
            "starting_time": first,
            "message_count": count,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._file],
            "files": [file],
            "custom_data": None,
            "ros_distro": "",
        }
