"""What a recording is made of: channels, and the files that hold their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

CDR, ROS1 = "cdr", "ros1"
"""Serializations of ROS 2 and ROS 1."""
METADATA_VERSION = 9
"""Version of metadata.yaml, and of the QoS profiles, that is written: Jazzy's."""


@dataclass(frozen=True, eq=False)
class Channel:
    """A topic in one file of a recording.

    Attributes:
        id: number within the file.
        topic: name of the topic.
        type: full name of the message type, such as "sensor_msgs/msg/Image".
        encoding: serialization of the messages: `CDR`, `ROS1`, or another one in MCAP.
        count: number of messages.
        definition: text of the type's definition; empty if the file has none.
        definition_format: "ros2msg", "ros2idl" or another one in MCAP; empty without a definition.
        digest: hash of the type (REP 2016); empty if the file has none.
        qos: profiles of the publishers' quality of service, as rosbag2's YAML; empty if the file has none.
    """

    id: int
    topic: str
    type: str
    encoding: str
    count: int
    definition: str = ""
    definition_format: str = ""
    digest: str = ""
    qos: str = ""


Message = tuple[int, Channel, bytes]
"""When it was recorded, in ns, its channel and its serialized content."""


class RecordingFile(Protocol):
    """A file of a recording, open for reading.

    Attributes:
        channels: its channels.
        notes: what is wrong with the file although it can be read, for people; it grows while messages are read.
    """

    channels: list[Channel]
    notes: list[str]

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield the messages of some of its channels in the order of time; raise `UsageError` where it is damaged."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class RecordingSink(Protocol):
    """A file of a recording, open for writing."""

    def add(self, channel: Channel) -> None:
        """Add a channel, by its id, before its messages."""
        ...

    def write(self, channel: Channel, time_ns: int, data: bytes | memoryview) -> None:
        """Add a message."""
        ...

    def close(self, metadata: str) -> None:
        """Write the text of metadata.yaml into the file and close it."""
        ...

    def abort(self) -> None:
        """Close the file as it is."""
        ...
