"""Asking a recorded camera: each image of a bag's topic gets its result, beside it and with its stamps.

Read and written by rosbags, without ROS: rosbag2 folders (sqlite and MCAP), MCAP files, and ROS 1 bags. Results are
kept in a log as they come, so that a run that was killed goes on where it was; the bag is written when all are there,
whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.rle import mask_of_runs
from wise_edge.robot.frames import Frame, Place
from wise_edge.robot.messages import (
    COMPRESSED,
    DETECTIONS,
    IMAGE,
    TEXT,
    VISION_MSGS,
    to_detections,
    to_frame,
    to_mask_message,
)
from wise_edge.robot.pace import Replay, replay
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

MASKS, FOUND, TOLD = "/wise_edge/mask", "/wise_edge/detections", "/wise_edge/result"
"""Topics of the results: mask (mono8), box with query and score, and all of a result but its mask as JSON."""
_STORAGES = {"mcap": "MCAP", "sqlite3": "SQLITE3"}


@dataclass(frozen=True)
class BagSettings:
    """What results are made with; a log of other settings is not gone on with.

    Attributes:
        bag: name of the bag.
        topic: of the images.
        query: what is asked of each.
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's.
    """

    bag: str
    topic: str
    query: str
    variant: str
    policy: str
    mask: str


@dataclass(frozen=True)
class BagReport:
    """What came of a bag.

    Attributes:
        frames: images of the topic.
        found: those with a mask.
        reused: results that an earlier, killed run had made.
        stamps_s: when each image was taken.
        took_ms: of each result, from the image to the mask.
        replay: as it would have been live.
    """

    frames: int
    found: int
    reused: int
    stamps_s: tuple[float, ...]
    took_ms: tuple[float, ...]
    replay: Replay


def process_bag(
    session: Session,
    bag: Path,
    topic: str | None,
    query: str,
    out: Path,
    *,
    variant: str | None = None,
    storage: str = "mcap",
    copy: bool = True,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, count: None,
    observe: Callable[[Frame, NodeResult], None] = lambda frame, result: None,
) -> BagReport:
    """Ask every image of a topic and write the results as a bag.

    Args:
        session: answers.
        bag: a rosbag2 folder, an MCAP file or a ROS 1 bag.
        topic: of the images; None where there is but one with images.
        query: what is asked.
        out: folder of the new bag.
        variant: prompt variant; None takes the bundle's default.
        storage: "mcap" or "sqlite3".
        copy: put the input's messages beside the results; those of a ROS 1 bag are of other types and never are.
        resume: go on with the log of a run that was killed.
        progress: called with how many images are done, and how many there are.
        observe: called with each image and its result, those of an earlier run excepted.

    Raises:
        UsageError: there is no such bag, topic or storage, its images cannot be read, or `out` or its log exist.
        MissingExtraError: rosbags is not installed.
        WiseEdgeError: a query failed, or the disk is full; what was asked is kept for --resume.
    """
    if storage not in _STORAGES:
        raise UsageError(f"unknown storage '{storage}'; choose {' or '.join(_STORAGES)}")
    if out.exists():
        raise UsageError(f"{out} exists; name another folder")
    with _open(bag) as reader:
        connections = _choose(reader, bag, topic)
        topic = connections[0].topic
        names = session.policy.name, session.mask.name
        settings = BagSettings(bag.name, topic, query, variant or session.policy.default_variant, *names)
        count = sum(connection.msgcount for connection in connections)
        log = _Log(out.with_name(f"{out.name}.log"), settings, resume=resume)
        reused = len(log.records)
        with log:
            for place, (connection, time_ns, data) in enumerate(reader.messages(connections=connections)):
                if place >= reused:
                    message = reader.deserialize(data, connection.msgtype)
                    frame = to_frame(message, topic)
                    result = _ask(session, frame, settings)
                    log.append(result.to_dict() | {"time_ns": time_ns})
                    observe(frame, result)
                    progress(place + 1, count)
        if not log.records:
            raise UsageError(f"{topic} has no message")
        _write(reader, connections, log.records, out, storage, copy and reader.is2)
    log.path.unlink()
    stamps_s = tuple(record["stamp_ns"] / 1e9 for record in log.records)
    took_ms = tuple(record["latency_ms"]["total"] for record in log.records)
    return BagReport(
        frames=len(log.records),
        found=sum(record["mask"] is not None for record in log.records),
        reused=reused,
        stamps_s=stamps_s,
        took_ms=took_ms,
        replay=replay(stamps_s, [ms / 1e3 for ms in took_ms]),
    )


def _ask(session: Session, frame: Frame, settings: BagSettings) -> NodeResult:
    return NodeResult.of(frame, session.segment(frame.image, settings.query, settings.variant))


@contextmanager
def _open(bag: Path) -> Iterator[Any]:
    """Open a bag for reading; one that is none is one line."""
    highlevel = require("rosbags.highlevel", "ros")
    typesys = require("rosbags.typesys", "ros")
    if not bag.exists():
        raise UsageError(f"{bag} does not exist; name a rosbag2 folder, an .mcap file or a ROS 1 .bag")
    try:
        reader = highlevel.AnyReader([bag], default_typestore=typesys.get_typestore(typesys.Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as error:  # rosbags' readers raise many kinds for files that are none
        raise UsageError(f"{bag} cannot be read as a bag: {error}") from error
    try:
        yield reader
    finally:
        reader.close()


def _choose(reader: Any, bag: Path, topic: str | None) -> list[Any]:
    """Return the connections of a topic with images."""
    pictures = [connection for connection in reader.connections if connection.msgtype in (IMAGE, COMPRESSED)]
    topics = sorted({connection.topic for connection in pictures})
    if topic is None and len(topics) == 1:
        topic = topics[0]
    found = [connection for connection in pictures if connection.topic == topic]
    if not found:
        known = ", ".join(topics) or "none"
        raise UsageError(f"{bag} has no images on {topic or 'a topic that you named'}; its topics with images: {known}")
    return found


def _write(
    reader: Any, connections: Sequence[Any], records: Sequence[Mapping[str, Any]], out: Path, storage: str, copy: bool
) -> None:
    """Write the bag into a neighbor and rename it."""
    rosbag2 = require("rosbags.rosbag2", "ros")
    typesys = require("rosbags.typesys", "ros")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    for name, definition in VISION_MSGS.items():
        store.register(typesys.get_types_from_msg(definition, name))
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    fresh.rmdir()  # rosbags makes it itself
    try:
        with rosbag2.Writer(fresh, version=9, storage_plugin=rosbag2.StoragePlugin[_STORAGES[storage]]) as writer:
            results = {
                topic: writer.add_connection(topic, name, typestore=store)
                for topic, name in ((MASKS, IMAGE), (FOUND, DETECTIONS), (TOLD, TEXT))
            }
            for time_ns, connection, data in _merge(reader, connections, records, copy):
                if connection is not None:
                    _copy(writer, results, connection, time_ns, data, reader.typestore)
                    continue
                for topic, message in _messages(data, store.types):
                    serialized = store.serialize_cdr(message, results[topic].msgtype)
                    writer.write(results[topic], time_ns, serialized)
        os.rename(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _copy(writer: Any, known: dict[str, Any], connection: Any, time_ns: int, data: bytes, store: Any) -> None:
    key = f"{connection.topic} {connection.msgtype}"
    if key not in known:
        known[key] = writer.add_connection(connection.topic, connection.msgtype, typestore=store)
    writer.write(known[key], time_ns, data)


def _merge(
    reader: Any, connections: Sequence[Any], records: Sequence[Mapping[str, Any]], copy: bool
) -> Iterator[tuple[int, Any, Any]]:
    """Give the input's messages, each image's result behind it; results have no connection."""
    if not copy:
        yield from ((record["time_ns"], None, record) for record in records)
        return
    pictures = {connection.id for connection in connections}
    waiting = iter(records)
    for connection, time_ns, data in reader.messages():
        yield time_ns, connection, data
        if connection.id in pictures:
            yield time_ns, None, next(waiting)


def _messages(record: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give a record's messages by their topics."""
    result = _result_of(record)
    stamp = types["builtin_interfaces/msg/Time"](
        sec=result.stamp_ns // 1_000_000_000, nanosec=result.stamp_ns % 1_000_000_000
    )
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
    yield MASKS, to_mask_message(result, header, types)
    yield FOUND, to_detections(result, header, types)
    yield TOLD, types[TEXT](data=json.dumps(result.to_facts()))


def _result_of(record: Mapping[str, Any]) -> NodeResult:
    fields = {name: record[name] for name in NodeResult.__dataclass_fields__}
    return NodeResult(
        **fields
        | {
            "mask": None if record["mask"] is None else mask_of_runs(record["mask"]),
            "place": None if record["place"] is None else Place(**record["place"]),
        }
    )


class _Log:
    """Results as they come, a line each behind a line of settings; a torn last line is cut off."""

    def __init__(self, path: Path, settings: BagSettings, *, resume: bool) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._stream: TextIO | None = None
        self._head = json.dumps(asdict(settings)) + "\n"
        if path.exists() and not resume:
            raise UsageError(f"{path} holds results of a run that was ended; go on with --resume, or delete it")
        if path.exists():
            self._read()

    def __enter__(self) -> _Log:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("a", encoding="utf-8", buffering=1)  # a line at a time
        if self._stream.tell() == 0:
            self._stream.write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, record: dict[str, Any]) -> None:
        """Add a result."""
        if self._stream is None:
            raise RuntimeError("the log is not open")
        try:
            self._stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise WiseEdgeError(f"cannot write {self.path}: {error.strerror}; mend that, then --resume") from error
        self.records.append(record)

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole and whole[0].decode() != self._head:
            raise UsageError(f"{self.path} was made with other settings; use those, or delete it")
        try:
            self.records = [json.loads(line) for line in whole[1:]]
        except ValueError as error:
            raise UsageError(f"{self.path} is damaged; delete it and begin anew") from error
        os.truncate(self.path, sum(map(len, whole)))
