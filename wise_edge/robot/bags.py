"""Queries on a recorded camera: each image of a topic gets its result, with the image's own stamps.

Results are appended to a log as they are made, so that a run that was killed can be resumed. The bag is written once
all results are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.evaluation.append_log import AppendLog, LogFormat
from wise_edge.robot.bag_files import STORAGES, choose_connections, open_bag, write_bag
from wise_edge.robot.frames import Frame
from wise_edge.robot.messages import to_frame
from wise_edge.robot.pace import Replay, replay
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session


@dataclass(frozen=True)
class BagSettings:
    """What results are made with; a log made with other settings is not resumed.

    Attributes:
        bag: name of the bag.
        topic: of the images.
        query: what each image is searched for.
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's backend.
    """

    bag: str
    topic: str
    query: str
    variant: str
    policy: str
    mask: str


@dataclass(frozen=True)
class BagReport:
    """What processing a bag has found and how long it took.

    Attributes:
        found: images with a mask.
        reused: results that an earlier, killed run had made.
        stamps_s: when each image was taken.
        took_ms: how long each result took, from the image to the mask.
        replay: what the policy would have seen live.
    """

    found: int
    reused: int
    stamps_s: tuple[float, ...]
    took_ms: tuple[float, ...]
    replay: Replay

    @property
    def frames(self) -> int:
        """Number of images of the topic."""
        return len(self.stamps_s)


_Record = dict[str, Any]
"""`NodeResult.to_dict`, and "time_ns": when the bag received the image."""


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
    """Run a query on every image of a topic and write the results as a bag.

    Args:
        session: answers the query.
        bag: a rosbag2 folder, an MCAP file or a ROS 1 bag.
        topic: of the images; None if the bag has only one with images.
        query: what to find.
        out: folder of the new bag.
        variant: prompt variant; None uses the bundle's default.
        storage: "mcap" or "sqlite3".
        copy: copy the input's messages into the new bag; never those of a ROS 1 bag, whose types differ.
        resume: continue the log of a run that was killed.
        progress: called with the number of images done and their total.
        observe: called with each image and its result, except those of an earlier run.

    Raises:
        UsageError: the bag, topic or storage does not exist, an image cannot be read, or `out` or its log exists.
        MissingExtraError: rosbags is not installed.
        WiseEdgeError: a query failed, or the disk is full; results made so far are kept for --resume.
    """
    if storage not in STORAGES:
        raise UsageError(f"unknown storage '{storage}'; choose {' or '.join(STORAGES)}")
    if out.exists():
        raise UsageError(f"{out} exists; name another folder")
    path = out.with_name(f"{out.name}.log")
    if path.exists() and not resume:
        raise UsageError(f"{path} holds results of an unfinished run; continue it with --resume, or delete the file")
    with open_bag(bag) as reader:
        connections = choose_connections(reader, bag, topic)
        names = session.policy.name, session.mask.name
        settings = BagSettings(bag.name, connections[0].topic, query, variant or session.policy.default_variant, *names)
        out.parent.mkdir(parents=True, exist_ok=True)
        with AppendLog(path, settings, _LOG_FORMAT, resume=resume) as log:
            reused = len(log.records)
            _answer(session, reader, connections, settings, log, progress, observe)
        write_bag(reader, connections, log.records, out, storage, copy and reader.is2)
    path.unlink()
    return _report(log.records, reused)


def _answer(
    session: Session,
    reader: Any,
    connections: list[Any],
    settings: BagSettings,
    log: AppendLog[BagSettings, _Record],
    progress: Callable[[int, int], None],
    observe: Callable[[Frame, NodeResult], None],
) -> None:
    """Append the results that the log does not have yet."""
    count = sum(connection.msgcount for connection in connections)
    reused = len(log.records)
    for place, (connection, time_ns, data) in enumerate(reader.messages(connections=connections)):
        if place >= reused:
            frame = to_frame(reader.deserialize(data, connection.msgtype), settings.topic)
            result = NodeResult.of(frame, session.segment(frame.image, settings.query, settings.variant))
            log.append(result.to_dict() | {"time_ns": time_ns})
            observe(frame, result)
            progress(place + 1, count)
    if not log.records:
        raise UsageError(f"{settings.topic} has no messages; name another topic with --topic")


def _report(records: list[_Record], reused: int) -> BagReport:
    stamps_s = tuple(record["stamp_ns"] / 1e9 for record in records)
    took_ms = tuple(record["latency_ms"]["total"] for record in records)
    return BagReport(
        found=sum(record["mask"] is not None for record in records),
        reused=reused,
        stamps_s=stamps_s,
        took_ms=took_ms,
        replay=replay(stamps_s, [ms / 1e3 for ms in took_ms]),
    )


def _to_record(settings: BagSettings, data: Any) -> _Record:
    if missing := {*NodeResult.__dataclass_fields__, "time_ns"} - set(data):
        raise KeyError(min(missing))
    record: _Record = data
    return record


_LOG_FORMAT = LogFormat[BagSettings, _Record](BagSettings, _to_record, dict, "wise-edge bag")
