"""A camera's images in a recording, and a rosbag2 with what was found in them.

Images are deserialized by rosbags, without ROS; all other messages are copied as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.files.writing import replacing_folder
from wise_edge.robot.messages import COMPRESSED, IMAGE
from wise_edge.robot.recording.channels import CDR, ROS1, Channel
from wise_edge.robot.recording.qos import join_qos
from wise_edge.robot.recording.reader import Recording
from wise_edge.robot.recording.writer import RecordingWriter
from wise_edge.robot.result_messages import DETECTIONS, TEXT, VISION_MSGS, to_detections, to_mask_message
from wise_edge.robot.results import NodeResult

_NAMESPACE = "/wise_edge"
MASKS, FOUND, TOLD = f"{_NAMESPACE}/mask", f"{_NAMESPACE}/detections", f"{_NAMESPACE}/result"
"""Topics of the results: the mask (mono8), the box with query and score, and everything but the mask as JSON."""
_TYPES = {MASKS: IMAGE, FOUND: DETECTIONS, TOLD: TEXT}
_PICTURES = ("Image", "Video", "FFMPEG")
"""Words in the types of images that are not read, such as foxglove.CompressedVideo."""
_RESULT = re.compile(rf"{_NAMESPACE}(_\d+)?/mask")


def choose_images(recording: Recording, bag: Path, topic: str | None) -> list[Channel]:
    """Return the channels of a topic with images; None chooses the only one that has any and is not a result.

    Raises:
        UsageError: there is no such topic, or it has no messages.
    """
    images = [
        channel
        for channel in recording.channels
        if channel.type in (IMAGE, COMPRESSED) and channel.encoding in (CDR, ROS1)
    ]
    topics = sorted({channel.topic for channel in images})
    filled = {channel.topic for channel in images if channel.count}
    sources = [name for name in topics if not _RESULT.fullmatch(name)]
    sources = [name for name in sources if name in filled] or sources
    if topic is None and len(sources) == 1:
        topic = sources[0]
    found = [channel for channel in images if channel.topic == topic]
    if not found:
        several = "several topics with images; name one with --topic" if topics else "no topic with images"
        wanted = several if topic is None else f"no images on {topic or 'a topic without a name'}"
        others = [
            f"; {channel.topic} has {channel.type or 'no type'} in {channel.encoding}, which is not read"
            for channel in recording.channels
            if channel not in images and (channel.topic == topic or any(word in channel.type for word in _PICTURES))
        ]
        known = f"; its topics with images: {', '.join(topics)}" if topics else ""
        raise UsageError(f"{bag} has {wanted}{known}{''.join(dict.fromkeys(others))}")
    if topic not in filled:
        raise UsageError(f"{topic} has no messages; choose another topic with --topic")
    return found


class Deserializer:
    """Turns serialized images of ROS 1 and ROS 2 into messages; their types are the same in all versions."""

    def __init__(self) -> None:
        self._typesys = require("rosbags.typesys", "ros")
        self._ros2 = self._typesys.get_typestore(self._typesys.Stores.ROS2_HUMBLE)
        self._ros1 = self._typesys.get_typestore(self._typesys.Stores.ROS1_NOETIC)

    def read(self, channel: Channel, data: bytes) -> Any:
        """Return a message; raises `UsageError` if it is damaged."""
        read = self._ros1.deserialize_ros1 if channel.encoding == ROS1 else self._ros2.deserialize_cdr
        try:
            return read(data, channel.type)
        except Exception as error:  # rosbags raises what its generated code and numpy raise
            raise UsageError(f"{channel.topic}: a damaged message ({error})") from error


@dataclass(frozen=True)
class Plan:
    """What a bag of results will hold.

    Attributes:
        images: channels of the images.
        copied: channels whose messages are copied.
        topics: from each of `MASKS`, `FOUND` and `TOLD` to the topic that it is written on.
        notes: what is not copied, or not as one would expect, for people.
    """

    images: tuple[Channel, ...]
    copied: tuple[Channel, ...]
    topics: Mapping[str, str]
    notes: tuple[str, ...]


def plan_copy(recording: Recording, images: Sequence[Channel], copy: bool) -> Plan:
    """Plan what is copied next to the results, before any image is asked.

    rosbag2 opens no bag whose topics differ in their serialization
    (https://github.com/ros2/rosbag2/blob/rolling/rosbag2_cpp/src/rosbag2_cpp/readers/sequential_reader.cpp), so only
    CDR is copied.
    """
    if not copy:
        return Plan(tuple(images), (), {topic: topic for topic in _TYPES}, ())
    store = _typestore()
    copied = tuple(channel for channel in recording.channels if channel.encoding == CDR)
    left = sorted({f"{channel.topic} ({channel.encoding})" for channel in recording.channels if channel not in copied})
    bare = sorted({f"{channel.topic} ({channel.type})" for channel in copied if not _define(channel, store).definition})
    topics = _free_topics(copied)
    notes = []
    if left:
        notes.append(f"not copied, since a rosbag2 holds only messages in CDR: {', '.join(left)}")
    if bare:
        notes.append(f"copied without a definition, which the recording does not hold: {', '.join(bare)}")
    if topics[MASKS] != MASKS:
        notes.append(f"the recording has results already; the new ones are on {', '.join(topics.values())}")
    return Plan(tuple(images), copied, topics, tuple(notes))


def write_bag(
    recording: Recording,
    plan: Plan,
    records: Sequence[Mapping[str, Any]],
    out: Path,
    storage: str,
    *,
    force: bool = False,
) -> None:
    """Write a bag of results, completely or not at all.

    Args:
        recording: what the results are of.
        plan: what is copied, each image before its result, and the topics of the results.
        records: the result of each image, in order: `NodeResult.to_record` and "time_ns".
        out: folder of the new bag; its file has the same name.
        storage: one of `wise_edge.robot.recording.writer.STORAGES`.
        force: replace a folder that exists.
    """
    store = _typestore()
    with replacing_folder(out, force=force) as fresh, RecordingWriter(fresh, out.name, storage) as writer:
        copies = _add_copies(writer, plan.copied, recording.qos, store)
        results = {
            topic: writer.add(_define(Channel(0, plan.topics[topic], name, CDR, 0), store))
            for topic, name in _TYPES.items()
        }
        for time_ns, channel, content in _merge(recording, plan, records):
            if channel is not None:
                writer.write(copies[channel], time_ns, content)
                continue
            for topic, message in _messages(content, store.types):
                writer.write(results[topic], time_ns, store.serialize_cdr(message, _TYPES[topic]))


def _typestore() -> Any:
    typesys = require("rosbags.typesys", "ros")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    for name, definition in VISION_MSGS.items():
        store.register(typesys.get_types_from_msg(definition, name))
    return store


def _define(channel: Channel, store: Any) -> Channel:
    """Return a channel with the definition of a standard type if the recording has none."""
    if channel.definition or channel.type not in store.types:
        return channel
    text, _ = store.generate_msgdef(channel.type, ros_version=2)
    return replace(channel, definition=text, definition_format="ros2msg", digest=store.hash_rihs01(channel.type))


def _free_topics(copied: Sequence[Channel]) -> dict[str, str]:
    """Return the topics of the results, in the first namespace of /wise_edge, /wise_edge_2 … that is free."""
    taken = {channel.topic for channel in copied}
    names = (_NAMESPACE if number == 1 else f"{_NAMESPACE}_{number}" for number in count(1))
    choices = ({topic: topic.replace(_NAMESPACE, name, 1) for topic in _TYPES} for name in names)
    return next(topics for topics in choices if not taken & set(topics.values()))


def _add_copies(
    writer: RecordingWriter, copied: Sequence[Channel], qos: Mapping[str, str], store: Any
) -> dict[Channel, Channel]:
    """Add what is copied; the channels of one topic and type, in several files or of several publishers, become one."""
    groups: dict[tuple[str, str], list[Channel]] = {}
    for channel in copied:
        groups.setdefault((channel.topic, channel.type), []).append(channel)
    added: dict[Channel, Channel] = {}
    for group in groups.values():
        first = next((channel for channel in group if channel.definition), group[0])
        profiles = join_qos(channel.qos for channel in group) or qos.get(first.topic, "")
        added |= dict.fromkeys(group, writer.add(_define(replace(first, qos=profiles), store)))
    return added


def _merge(
    recording: Recording, plan: Plan, records: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, Channel | None, Any]]:
    """Yield the messages that are copied, each image followed by its result; results have no channel."""
    if not plan.copied:
        yield from ((record["time_ns"], None, record) for record in records)
        return
    copied, images, waiting = set(plan.copied), set(plan.images), iter(records)
    for time_ns, channel, data in recording.messages(copied | images):
        if channel in copied:
            yield time_ns, channel, data
        if channel in images and (record := next(waiting, None)) is not None:
            if record["time_ns"] != time_ns:
                raise WiseEdgeError(
                    "the recording has changed since its images were asked; delete the log and start over"
                )
            yield time_ns, None, record
    yield from ((record["time_ns"], None, record) for record in waiting)  # of images behind damage in other topics


def _messages(record: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield topic and message of everything that a record becomes."""
    result = NodeResult.from_record(record)
    seconds, nanosec = divmod(result.stamp_ns, 1_000_000_000)
    sec = min(max(seconds, -(1 << 31)), (1 << 31) - 1)  # what ROS 2's 32 bits hold of a damaged or a ROS 1 stamp
    stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
    yield MASKS, to_mask_message(result, header, types)
    yield FOUND, to_detections(result, header, types)
    yield TOLD, types[TEXT](data=to_json(result.to_facts()))
