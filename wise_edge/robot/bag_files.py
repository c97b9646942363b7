"""Bags as files: opening one, choosing its topic of images, and writing another with results in it.

rosbags reads and writes them, without ROS: rosbag2 folders (sqlite and MCAP), MCAP files and ROS 1 bags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files import replacing_folder
from wise_edge.rle import mask_of_runs
from wise_edge.robot.frames import Place
from wise_edge.robot.messages import COMPRESSED, IMAGE
from wise_edge.robot.result_messages import DETECTIONS, TEXT, VISION_MSGS, to_detections, to_mask_message
from wise_edge.robot.results import NodeResult

MASKS, FOUND, TOLD = "/wise_edge/mask", "/wise_edge/detections", "/wise_edge/result"
"""Topics of the results: the mask (mono8), the box with query and score, and everything but the mask as JSON."""
STORAGES = {"mcap": "MCAP", "sqlite3": "SQLITE3"}


@contextmanager
def open_bag(bag: Path) -> Iterator[Any]:
    """Open a bag for reading, as rosbags' `AnyReader`.

    Raises:
        UsageError: there is no such bag, or it cannot be read.
        MissingExtraError: rosbags is not installed.
    """
    highlevel = require("rosbags.highlevel", "ros")
    typesys = require("rosbags.typesys", "ros")
    if not bag.exists():
        raise UsageError(f"{bag} does not exist; name a rosbag2 folder, an .mcap file or a ROS 1 .bag")
    try:
        reader = highlevel.AnyReader([bag], default_typestore=typesys.get_typestore(typesys.Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as error:  # for invalid files, rosbags' readers raise many kinds
        raise UsageError(f"{bag} cannot be read as a bag: {error}") from error
    try:
        yield reader
    finally:
        reader.close()


def choose_connections(reader: Any, bag: Path, topic: str | None) -> list[Any]:
    """Return the connections of a topic with images; None chooses the only one."""
    images = [connection for connection in reader.connections if connection.msgtype in (IMAGE, COMPRESSED)]
    topics = sorted({connection.topic for connection in images})
    if topic is None and len(topics) == 1:
        topic = topics[0]
    found = [connection for connection in images if connection.topic == topic]
    if not found:
        known = ", ".join(topics) or "none"
        wanted = f"no images on {topic}" if topic else "not exactly one topic with images; name one with --topic"
        raise UsageError(f"{bag} has {wanted}; its topics with images: {known}")
    return found


def write_bag(
    reader: Any, connections: Sequence[Any], records: Sequence[Mapping[str, Any]], out: Path, storage: str, copy: bool
) -> None:
    """Write a bag of results, completely or not at all.

    Args:
        reader: the open bag that the results are of.
        connections: those of its images.
        records: the result of each image, in order: `NodeResult.to_dict` and "time_ns".
        out: folder of the new bag.
        storage: a key of `STORAGES`.
        copy: also copy the messages of the input, each image's result after it.
    """
    rosbag2 = require("rosbags.rosbag2", "ros")
    with replacing_folder(out) as fresh:
        inner = fresh / out.name  # rosbags makes the folder itself and names the file in it after it
        with rosbag2.Writer(inner, version=9, storage_plugin=rosbag2.StoragePlugin[STORAGES[storage]]) as writer:
            _write_messages(writer, reader, _merge(reader, connections, records, copy))
        for file in list(inner.iterdir()):
            file.rename(fresh / file.name)
        inner.rmdir()


def _write_messages(writer: Any, reader: Any, messages: Iterator[tuple[int, Any, Any]]) -> None:
    typesys = require("rosbags.typesys", "ros")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    for name, definition in VISION_MSGS.items():
        store.register(typesys.get_types_from_msg(definition, name))
    results = {
        topic: writer.add_connection(topic, name, typestore=store)
        for topic, name in ((MASKS, IMAGE), (FOUND, DETECTIONS), (TOLD, TEXT))
    }
    copied: dict[tuple[str, str], Any] = {}
    for time_ns, connection, data in messages:
        if connection is not None:
            _copy(writer, copied, connection, time_ns, data, reader.typestore)
            continue
        for topic, message in _messages(data, store.types):
            writer.write(results[topic], time_ns, store.serialize_cdr(message, results[topic].msgtype))


def _copy(
    writer: Any, copied: dict[tuple[str, str], Any], connection: Any, time_ns: int, data: bytes, store: Any
) -> None:
    key = connection.topic, connection.msgtype
    if key not in copied:
        copied[key] = writer.add_connection(*key, typestore=store)
    writer.write(copied[key], time_ns, data)


def _merge(
    reader: Any, connections: Sequence[Any], records: Sequence[Mapping[str, Any]], copy: bool
) -> Iterator[tuple[int, Any, Any]]:
    """Yield the messages of the input, each image followed by its result; results have no connection."""
    if not copy:
        yield from ((record["time_ns"], None, record) for record in records)
        return
    images = {connection.id for connection in connections}
    waiting = iter(records)
    for connection, time_ns, data in reader.messages():
        yield time_ns, connection, data
        if connection.id in images:
            yield time_ns, None, next(waiting)


def _messages(record: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield topic and message of everything that a record becomes."""
    result = _to_result(record)
    stamp = types["builtin_interfaces/msg/Time"](
        sec=result.stamp_ns // 1_000_000_000, nanosec=result.stamp_ns % 1_000_000_000
    )
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
    yield MASKS, to_mask_message(result, header, types)
    yield FOUND, to_detections(result, header, types)
    yield TOLD, types[TEXT](data=json.dumps(result.to_facts()))


def _to_result(record: Mapping[str, Any]) -> NodeResult:
    fields = {name: record[name] for name in NodeResult.__dataclass_fields__}
    return NodeResult(
        **fields
        | {
            "mask": None if record["mask"] is None else mask_of_runs(record["mask"]),
            "place": None if record["place"] is None else Place(**record["place"]),
        }
    )
