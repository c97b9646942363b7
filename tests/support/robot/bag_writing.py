"""Bags that rosbags writes and reads, as a robot records them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from ros_types import STORE, TYPES, image_message
from wise_edge.robot.messages import IMAGE

BEGIN_NS = 1_700_000_000_123_456_789
STEP_NS = 33_333_333
TOPIC = "/camera/color/image_raw"
OWN = "my_robot_msgs/msg/WheelTorque"
STORE.register(get_types_from_msg("std_msgs/Header header\nfloat64 torque\n", OWN))
_FOREVER = QosTime(2147483647, 4294967295)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)


def write_bag(
    folder: Path, count: int, *, storage: str = "MCAP", draw: Callable[[int], np.ndarray] | None = None
) -> Path:
    """A camera at 30 Hz and some chatter between its images; the bag has them 5 ms after they were taken."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        chatter = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=STORE)
        for number in range(count):
            pixels = draw(number) if draw else np.full((20, 30, 3), number, np.uint8)
            stamp_ns = BEGIN_NS + number * STEP_NS
            message = image_message(pixels, stamp_ns=stamp_ns)
            writer.write(camera, stamp_ns + 5_000_000, STORE.serialize_cdr(message, IMAGE))
            words = STORE.serialize_cdr(TYPES["std_msgs/msg/String"](data=f"{number}"), "std_msgs/msg/String")
            writer.write(chatter, stamp_ns + 10_000_000, words)
    return folder


def write_messages(
    folder: Path,
    messages: Sequence[tuple[int, str, str, Any]],
    *,
    storage: str = "MCAP",
    qos: dict[str, Qos] | None = None,
) -> Path:
    """Write times in ns, topics, types, and messages or serialized bytes."""
    with Writer(folder, version=8, storage_plugin=StoragePlugin[storage]) as writer:
        topics: dict[str, Any] = {}
        for time_ns, topic, name, message in messages:
            if topic not in topics:
                profiles = [qos[topic]] if qos and topic in qos else []
                topics[topic] = writer.add_connection(topic, name, typestore=STORE, offered_qos_profiles=profiles)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, name)
            writer.write(topics[topic], time_ns, data)
    return folder


def as_humble(folder: Path) -> Path:
    """Turn an SQLite bag into what Humble records: tables of schema 3, which hold no definitions, and no hashes.

    https://github.com/ros2/rosbag2/blob/humble/rosbag2_storage_default_plugins/src/rosbag2_storage_default_plugins/sqlite/sqlite_storage.cpp
    """
    (file,) = folder.glob("*.db3")
    base = sqlite3.connect(file)
    base.executescript(
        "ALTER TABLE topics DROP COLUMN type_description_hash; DROP TABLE message_definitions; "
        "UPDATE schema SET schema_version = 3, ros_distro = 'humble';"
    )
    base.close()
    metadata = folder / "metadata.yaml"
    text = re.sub(r"\n *(type_description_hash|custom_data|ros_distro):\s*\S+", "", metadata.read_text())
    metadata.write_text(text.replace("version: 8", "version: 5"))
    return folder


def read_bag(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Topic to times and messages."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([folder], default_typestore=STORE) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


def read_raw(folder: Path) -> list[tuple[str, int, bytes]]:
    """Topics, times and serialized messages, in order."""
    with AnyReader([folder], default_typestore=STORE) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]
