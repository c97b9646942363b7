"""Queries on a recorded camera: each image of a topic gets its result, with the image's own stamps.

Everything that can be known is checked before the first image is asked. Results are appended to a log as they are made,
so that a run that was killed can be resumed. The bag is written once all results are there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge import __version__
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.evaluation.append_log import UNRECORDED, AppendLog, LogFormat, refuse_unknown
from wise_edge.files.hashing import fingerprint
from wise_edge.files.locks import claiming
from wise_edge.files.targets import make_folder
from wise_edge.images.depth import StreamDepth
from wise_edge.policy.prompts import normalize_query
from wise_edge.ranges import Checked
from wise_edge.rle import unpack_counts
from wise_edge.robot.bag_files import Deserializer, Plan, choose_images, plan_copy, write_bag
from wise_edge.robot.frames import Frame
from wise_edge.robot.messages import stamp_of, to_frame
from wise_edge.robot.pace import Replay, choose_times, replay
from wise_edge.robot.recording.reader import Recording, open_recording
from wise_edge.robot.recording.writer import STORAGES
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session


@dataclass(frozen=True)
class BagSettings(Checked):
    """What results are made with; a log made with other settings is not resumed.

    Attributes:
        bag: name of the bag.
        topic: of the images.
        query: what each image is searched for.
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's backend.
        recording_sha256: fingerprint of the bag's files.
        model_sha256: of the bundle, see `Bundle.sha256`; empty if the caller did not say.
        version: of wise-edge.
    """

    bag: str
    topic: str
    query: str
    variant: str
    policy: str
    mask: str
    recording_sha256: str = UNRECORDED
    model_sha256: str = UNRECORDED
    version: str = UNRECORDED


@dataclass(frozen=True)
class BagReport:
    """What processing a bag has found and how long it took.

    Attributes:
        frames: images of the topic.
        found: images with a mask.
        reused: results that an earlier, killed run had made.
        unreadable: images that could not be read; their results have the reason.
        reason: why the first of those could not be read; None if all could.
        bits: how many bits images of 16 bits per channel were taken to use; None for other images.
        topics: where the results are.
        times_s: when each image was taken, from the first one on; empty without usable times.
        clock: why these are not the images' stamps; None if they are.
        took_ms: how long each result took, from the image to the mask; None for an image that could not be read.
        replay: what the policy would have seen live; None without usable times.
    """

    frames: int
    found: int
    reused: int
    unreadable: int
    reason: str | None
    bits: int | None
    topics: tuple[str, ...]
    times_s: tuple[float, ...]
    clock: str | None
    took_ms: tuple[float | None, ...]
    replay: Replay | None


_Record = dict[str, Any]
"""`NodeResult.to_record` and `_OWN`."""
_OWN = {"index", "time_ns", "bits"}
"""The image's place among those of the topic, when the bag received it, and `StreamDepth.bits` after it."""


@dataclass(frozen=True)
class BagJob:
    """A query on a recording, of which everything is checked that does not need a session; see `open_job`.

    Attributes:
        recording: the open bag, with notes for people.
        plan: what will be written, with notes for people.
    """

    recording: Recording
    plan: Plan
    _bag: Path
    _query: str
    _out: Path
    _log: Path
    _variant: str | None
    _storage: str
    _resume: bool
    _model_sha256: str

    def run(
        self,
        session: Session,
        *,
        progress: Callable[[int, int], None] = lambda done, count: None,
        observe: Callable[[Frame, NodeResult], None] = lambda frame, result: None,
    ) -> BagReport:
        """Run the query on every image and write the results; see `process_bag`."""
        session.check_choice(self._variant)
        settings = BagSettings(
            bag=self._bag.name,
            topic=self.plan.images[0].topic,
            query=self._query,
            variant=self._variant or session.policy.default_variant,
            policy=session.policy.name,
            mask=session.mask.name,
            recording_sha256=fingerprint(self.recording.paths),
            model_sha256=self._model_sha256,
            version=__version__,
        )
        with AppendLog(self._log, settings, _LOG_FORMAT, resume=self._resume) as log:
            reused = len(log.records)
            self._check_written(log.records)
            again = self._out.exists()  # then it is of these results
            self._answer(session, settings, log, progress, observe)
        if not any(record["latency_ms"] for record in log.records):
            self._log.unlink()
            reasons = [record["reason"] for record in log.records[:1]] or self.recording.notes[-1:]
            raise UsageError(f"none of the images on {settings.topic} can be read: {''.join(reasons)}")
        try:
            write_bag(self.recording, self.plan, log.records, self._out, self._storage, force=again)
        except WiseEdgeError as error:
            error.args = (f"{error}; the results are kept, so add --resume",)
            raise
        except (OSError, OverflowError, sqlite3.Error) as error:
            raise WiseEdgeError(f"cannot write {self._out}: {error}; fix that, then resume with --resume") from error
        self._log.unlink()
        return _report(log.records, reused, self.plan)

    def _check_written(self, records: list[_Record]) -> None:
        """Raise `UsageError` for a new bag that exists, unless a run was killed between it and its log's removal."""
        if not self._out.exists():
            return
        with suppress(UsageError), open_recording(self._out) as found:
            counts = {channel.topic: channel.count for channel in found.channels}
            if records and all(counts.get(topic) == len(records) for topic in self.plan.topics.values()):
                return
        raise UsageError(f"{self._out} exists; choose another folder")

    def _answer(
        self,
        session: Session,
        settings: BagSettings,
        log: AppendLog[BagSettings, _Record],
        progress: Callable[[int, int], None],
        observe: Callable[[Frame, NodeResult], None],
    ) -> None:
        """Append the results that the log does not have yet."""
        count = sum(channel.count for channel in self.plan.images)
        reused, deserializer = len(log.records), Deserializer()
        depth = StreamDepth(log.records[-1]["bits"] if log.records else None)
        for place, (time_ns, channel, data) in enumerate(self.recording.messages(self.plan.images)):
            if place < reused:
                if (log.records[place]["index"], log.records[place]["time_ns"]) != (place, time_ns):
                    raise UsageError(f"{self._log} has other images than {self._bag}; delete the log to start over")
                continue
            stamp_ns, frame_id, frame = time_ns, "", None
            try:
                message = deserializer.read(channel, data)
                stamp_ns, frame_id = stamp_of(message.header), str(message.header.frame_id)
                frame = to_frame(message, settings.topic, depth)
            except UsageError as error:
                result = NodeResult.unreadable(stamp_ns, frame_id, settings.query, settings.variant, str(error))
            if frame is not None:
                result = NodeResult.of(frame, session.segment(frame.image, settings.query, settings.variant))
            log.append(result.to_record() | {"index": place, "time_ns": time_ns, "bits": depth.bits})
            if frame is not None:
                observe(frame, result)
            progress(place + 1, count)


@contextmanager
def open_job(
    bag: Path,
    topic: str | None,
    query: str,
    out: Path,
    *,
    variant: str | None = None,
    storage: str = "mcap",
    copy: bool = True,
    resume: bool = False,
    model_sha256: str = "",
) -> Iterator[BagJob]:
    """Open a bag, check a request for it before models are loaded, and hold the lock on its log.

    Args:
        bag: a rosbag2 folder, a file of MCAP or SQLite, or a ROS 1 bag; unfinished ones are read as far as they go.
        topic: of the images; None if the bag has only one with images.
        query: what to find.
        out: folder of the new bag.
        variant: prompt variant; None uses the bundle's default.
        storage: one of `STORAGES`.
        copy: copy the input's messages of ROS 2 into the new bag, as they are.
        resume: continue the log of a run that was killed.
        model_sha256: what identifies the session's models; a log of others is not continued.

    Raises:
        UsageError: the bag, topic or storage does not exist, the query is empty, `out` or its log exists, or another
            process writes it.
        MissingExtraError: the extra `ros` is not installed.
    """
    query = normalize_query(query)
    if storage not in STORAGES:
        raise UsageError(f"unknown storage '{storage}'; choose {' or '.join(STORAGES)}")
    log = out.with_name(f"{out.name}.log")
    _check_out(out, resume and _has_results(log))
    with open_recording(bag) as recording:
        images = choose_images(recording, bag, topic)
        plan = plan_copy(recording, images, copy)
        make_folder(out.parent)
        with claiming(log):
            _check_out(out, resume and _has_results(log))  # again, since another run may have ended meanwhile
            if _has_results(log) and not resume:
                raise UsageError(
                    f"{log} holds results of an unfinished run; continue it with --resume, or delete the file"
                )
            yield BagJob(recording, plan, bag, query, out, log, variant, storage, resume, model_sha256)


def _has_results(log: Path) -> bool:
    return os.path.exists(log) and os.path.getsize(log) > 0


def _check_out(out: Path, resumed: bool) -> None:
    """Raise `UsageError` for a folder that cannot be made, or exists although no log of its results is resumed."""
    try:
        exists = out.exists()
    except OSError as error:  # the name is too long
        raise UsageError(f"cannot write {str(out)[:200]}: {error.strerror}") from error
    if exists and not resumed:
        raise UsageError(f"{out} exists; choose another folder")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"cannot write into {parent}; choose another folder or change its permissions")


def process_bag(
    session: Session,
    bag: Path,
    topic: str | None,
    query: str,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, count: None,
    observe: Callable[[Frame, NodeResult], None] = lambda frame, result: None,
    **options: Any,
) -> BagReport:
    """Run a query on every image of a topic and write the results as a bag.

    An image that cannot be read gets a result with the reason, and the run continues.

    Args:
        session: answers the query.
        bag: as of `open_job`, as are the next three.
        topic: of the images.
        query: what to find.
        out: folder of the new bag.
        progress: called with the number of images done and their total.
        observe: called with each image that could be read and its result, except those of an earlier run.
        options: the others of `open_job`.

    Raises:
        UsageError: as of `open_job`, or none of the images can be read.
        MissingExtraError: the extra `ros` is not installed.
        WiseEdgeError: a query failed, or the disk is full; results made so far are kept for --resume.
    """
    with open_job(bag, topic, query, out, **options) as job:
        return job.run(session, progress=progress, observe=observe)


def _report(records: list[_Record], reused: int, plan: Plan) -> BagReport:
    unreadable = [record["reason"] for record in records if not record["latency_ms"]]
    took_ms = [record["latency_ms"].get("total") for record in records]
    times_s, clock = choose_times([record["stamp_ns"] for record in records], [record["time_ns"] for record in records])
    return BagReport(
        frames=len(records),
        found=sum(
            any(len(unpack_counts(item["mask"]["counts"])) > 1 for item in record["objects"]) for record in records
        ),
        reused=reused,
        unreadable=len(unreadable),
        reason=unreadable[0] if unreadable else None,
        bits=records[-1]["bits"],
        topics=tuple(plan.topics.values()),
        times_s=times_s,
        clock=clock,
        took_ms=tuple(took_ms),
        replay=replay(times_s, [None if ms is None else ms / 1e3 for ms in took_ms]) if times_s else None,
    )


def _to_record(settings: BagSettings, data: Any) -> _Record:
    refuse_unknown(data, {*NodeResult.__dataclass_fields__, *_OWN})
    NodeResult.from_record(data)
    record: _Record = data
    bits, latency_ms = record["bits"], record["latency_ms"]
    whole = all(type(record[name]) is int for name in ("index", "time_ns"))
    if not whole or bits not in (None, *range(8, 33)) or (latency_ms and "total" not in latency_ms):
        raise ValueError("a value does not belong to a result")
    return record


_LOG_FORMAT = LogFormat[BagSettings, _Record](
    BagSettings, _to_record, dict, lambda record: {"index": record["index"]}, "wise-edge bag"
)
