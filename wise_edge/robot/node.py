"""The node without a transport: frames and queries in, results out, each with its own frame's stamp and frame id.

A standing query is grounded at the policy's pace and followed at the camera's (`wise_edge.runtimes.tracking`); the
newest frame wins, and one waits at most, so that memory stays as it is however slow the policy is. One-shot queries are
answered on the newest frame, by the same session, between the standing query's groundings. Adapters hand in frames and
hand out results; nothing here knows what carries them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.geometry import Box, Point
from wise_edge.prompts import normalize_query
from wise_edge.rle import run_lengths
from wise_edge.robot.frames import Frame, Place, find_place
from wise_edge.robot.power_gauge import PowerGauge
from wise_edge.runtimes.base import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import Stamped, Tracked

RATE_S = 5.0
"""Over which rates are told."""
_KEPT = 256  # ages and delays that percentiles are told of
_LOOK_S = 0.1
_RETRY_S = 1.0
Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True, eq=False)
class NodeResult:
    """What is known of a query's object on one frame.

    Attributes:
        stamp_ns: the frame's own.
        frame_id: likewise.
        query: what was asked.
        standing: whether it is of a standing query, or of a one-shot.
        box: XYXY, half-open pixels of the frame; None where nothing was found.
        points: inside the object.
        mask: bool [H, W] of the frame.
        score: the segmenter's own estimate of the mask's IoU.
        place: where it is, in the camera's frame; None without depth and intrinsics.
        rationale: the policy's, of the last grounding.
        variant: its prompt variant.
        reason: why there is no answer; None where there is one.
        grounded_stamp_ns: stamp of the frame that the policy saw.
        dropped: frames before this one that got no result.
        delay_ms: from the frame's coming to this result.
        latency_ms: phase to ms, of the last grounding.
    """

    stamp_ns: int
    frame_id: str
    query: str
    standing: bool
    box: Box | None
    points: tuple[Point, ...]
    mask: npt.NDArray[np.bool_] | None
    score: float | None
    place: Place | None
    rationale: str | None
    variant: str
    reason: str | None
    grounded_stamp_ns: int
    dropped: int
    delay_ms: float
    latency_ms: dict[str, float]

    @property
    def stale(self) -> bool:
        """Whether the policy has not seen this frame but an earlier one."""
        return self.grounded_stamp_ns != self.stamp_ns

    @property
    def age_ms(self) -> float:
        """How much older the frame is that the policy saw."""
        return (self.stamp_ns - self.grounded_stamp_ns) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; the mask as COCO's uncompressed run lengths."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return data | {
            "mask": None if self.mask is None else run_lengths(self.mask),
            "place": None if self.place is None else asdict(self.place),
            "stale": self.stale,
            "age_ms": self.age_ms,
        }


@dataclass(frozen=True)
class Diagnostics:
    """How a node fares.

    Attributes:
        level: "error" after a failure until the next result, "warn" where frames or results fail to come.
        message: why, in words.
        enabled: whether the standing query is worked on.
        query: the standing query; None without one.
        frames_hz: frames that came, over `RATE_S`.
        results_hz: results, likewise.
        frames: frames since the beginning.
        results: results since the beginning.
        dropped: frames that got no result, since the beginning.
        delay_ms_p50: from a frame's coming to its result, of the last results; None without any.
        delay_ms_p99: likewise.
        age_ms_p99: how much older the frame is that the policy saw; None without any.
        grounding_ms: phase to ms, of the last grounding.
        failures: queries that failed.
        power_w: what the device takes; None where it is not told.
        power_reason: why it is not; None where it is.
    """

    level: Level
    message: str
    enabled: bool
    query: str | None
    frames_hz: float
    results_hz: float
    frames: int
    results: int
    dropped: int
    delay_ms_p50: float | None
    delay_ms_p99: float | None
    age_ms_p99: float | None
    grounding_ms: dict[str, float]
    failures: int
    power_w: float | None
    power_reason: str | None


@dataclass(eq=False)
class _Standing:
    query: str
    cancel: Event
    reported: int | None = None  # place of the last frame that got a result; what came before the query is no drop


@dataclass(frozen=True, eq=False)
class _Arrival:
    frame: Frame
    place: int  # of all frames that came, from 1
    came_s: float


@dataclass(frozen=True, eq=False)
class _Carried(Stamped):
    """A frame on its way through the tracking, which hands it back."""

    arrival: _Arrival


class Node:
    """Answers queries on the frames of one camera; a context manager.

    Args:
        session: policy and segmenter; other nodes may share it.
        publish: takes each result of the standing query, in a thread of the node's; what it raises is a failure in the
            diagnostics, and the node goes on.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant of each grounding by this instead.
        power: tells what the device takes, for diagnostics; None looks for it on this machine.
        clock: seconds that do not run backwards.
    """

    def __init__(
        self,
        session: Session,
        publish: Callable[[NodeResult], None],
        *,
        variant: str | None = None,
        deadline_ms: float | None = None,
        power: PowerGauge | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if variant is not None and deadline_ms is not None:
            raise UsageError("a deadline chooses the variant; leave the variant out")
        self._session, self._publish = session, publish
        self._variant, self._deadline_ms = variant, deadline_ms
        self._power = power or PowerGauge.find()
        self._clock = clock
        self._changed = Condition()
        self._newest: _Arrival | None = None
        self._standing: _Standing | None = None
        self._enabled, self._closed = True, False
        self._record = _Record()
        self._worker = Thread(target=self._work, name="node")

    def __enter__(self) -> Node:
        """Begin to work."""
        self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: the query that is being answered is cancelled before the policy's next call."""
        self.close()

    def close(self) -> None:
        """End the node's work; frames and queries that come later are ignored."""
        with self._changed:
            self._closed = True
            self._set_standing(None)
        if self._worker.is_alive():
            self._worker.join()

    def put(self, frame: Frame) -> None:
        """Take a frame, in place of one that nobody took yet; returns at once."""
        with self._changed:
            place = self._newest.place + 1 if self._newest else 1
            self._newest = _Arrival(frame, place, self._clock())
            self._record.frame(self._newest.came_s)
            self._changed.notify_all()

    def follow(self, query: str | None) -> None:
        """Take a standing query in place of the last one; None ends it.

        Raises:
            UsageError: the query is empty or too long.
        """
        words = None if query is None else normalize_query(query)
        with self._changed:
            self._set_standing(None if words is None or self._closed else _Standing(words, Event()))

    def enable(self, on: bool) -> None:
        """Work on the standing query, or leave the device to others; one-shot queries are answered all the same."""
        with self._changed:
            self._enabled = on
            if not on and self._standing is not None:
                self._set_standing(_Standing(self._standing.query, Event()))
            self._changed.notify_all()

    def ask(self, query: str, timeout_s: float = 5.0) -> NodeResult:
        """Answer a query on the newest frame, or on the first that comes.

        Args:
            query: what to find, in words.
            timeout_s: how long to wait for a first frame.

        Raises:
            UsageError: the query is empty or too long.
            DeviceError: no frame came, or the node is closed.
            WiseEdgeError: the query failed.
        """
        words = normalize_query(query)
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._closed, timeout_s)
            arrival = self._newest
            if arrival is None or self._closed:
                why = "the node is closed" if self._closed else f"no frame came within {timeout_s:g} s"
                raise DeviceError(f"{why}; is the camera on, and on the topic that was named?")
        frame = arrival.frame
        result = self._session.segment(frame.image, words, self._variant, deadline_ms=self._deadline_ms)
        return self._describe(arrival, result, _Found.of(result), frame.stamp_ns, 0, None)

    def diagnostics(self) -> Diagnostics:
        """Return how the node fares now."""
        power = self._power.read()
        with self._changed:
            query = self._standing.query if self._standing else None
            return self._record.describe(self._clock(), self._enabled, query, power)

    def _set_standing(self, standing: _Standing | None) -> None:
        """Take another standing query; the caller holds the lock."""
        if self._standing is not None:
            self._standing.cancel.set()
        self._standing = standing
        self._changed.notify_all()

    def _work(self) -> None:
        while (standing := self._next_standing()) is not None:
            try:
                found = self._session.track(
                    self._frames(standing),
                    standing.query,
                    self._variant,
                    deadline_ms=self._deadline_ms,
                    cancel=standing.cancel,
                )
                for tracked in found:
                    if not standing.cancel.is_set():
                        self._hand_out(tracked, standing)
            except QueryCancelledError:
                continue
            except WiseEdgeError as error:
                with self._changed:
                    self._record.failure(str(error))
                standing.cancel.wait(_RETRY_S)

    def _next_standing(self) -> _Standing | None:
        """Wait for a standing query that is worked on; None where the node is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._enabled and self._standing is not None))
            return None if self._closed else self._standing

    def _frames(self, standing: _Standing) -> Iterator[_Carried]:
        """Give the newest frame, and then the newest one again and again, each once."""
        seen = 0
        while not standing.cancel.is_set():
            with self._changed:
                self._changed.wait_for(partial(self._is_news, standing, seen), _LOOK_S)
                arrival = self._newest
            if arrival is not None and arrival.place > seen:
                if standing.reported is None:
                    standing.reported = arrival.place - 1
                seen = arrival.place
                yield _Carried(arrival.frame.image, arrival.frame.stamp_s, arrival)

    def _is_news(self, standing: _Standing, seen: int) -> bool:
        return standing.cancel.is_set() or (self._newest is not None and self._newest.place > seen)

    def _hand_out(self, tracked: Tracked, standing: _Standing) -> None:
        arrival, grounded = (_arrival_of(frame) for frame in (tracked.frame, tracked.grounded_frame))
        reported = arrival.place - 1 if standing.reported is None else standing.reported
        dropped = max(0, arrival.place - reported - 1)
        standing.reported = max(reported, arrival.place)
        stamp_ns = grounded.frame.stamp_ns
        result = self._describe(arrival, tracked.grounding, _Found.of(tracked), stamp_ns, dropped, standing.query)
        with self._changed:
            self._record.result(self._clock(), result)
        try:
            self._publish(result)
        except Exception as error:  # a robot's node outlives a result that nobody could take
            with self._changed:
                self._record.failure(f"a result could not be handed out: {error}")

    def _describe(
        self,
        arrival: _Arrival,
        grounding: SegmentationResult,
        found: _Found,
        grounded_stamp_ns: int,
        dropped: int,
        standing: str | None,
    ) -> NodeResult:
        frame = arrival.frame
        return NodeResult(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            query=standing or grounding.query,
            standing=standing is not None,
            box=found.box,
            points=found.points,
            mask=found.mask,
            score=found.score,
            place=None if found.mask is None else find_place(found.mask, frame),
            rationale=grounding.rationale,
            variant=grounding.variant,
            reason=grounding.reason,
            grounded_stamp_ns=grounded_stamp_ns,
            dropped=dropped,
            delay_ms=(self._clock() - arrival.came_s) * 1e3,
            latency_ms=asdict(grounding.latency_ms),
        )


def _arrival_of(frame: Stamped) -> _Arrival:
    if not isinstance(frame, _Carried):
        raise RuntimeError("the tracking handed back another frame")
    return frame.arrival


@dataclass(frozen=True, eq=False)
class _Found:
    """What a grounding or the following found on a frame."""

    box: Box | None
    points: tuple[Point, ...]
    mask: npt.NDArray[np.bool_] | None
    score: float | None

    @classmethod
    def of(cls, source: SegmentationResult | Tracked) -> _Found:
        return cls(source.box, source.points or (), source.mask, source.score)


class _Record:
    """What diagnostics are told from."""

    def __init__(self) -> None:
        self.frames = self.results = self.dropped = self.failures = 0
        self._frame_times: deque[float] = deque()
        self._result_times: deque[float] = deque()
        self._delays_ms: deque[float] = deque(maxlen=_KEPT)
        self._ages_ms: deque[float] = deque(maxlen=_KEPT)
        self._grounding_ms: dict[str, float] = {}
        self._failed: str | None = None

    def frame(self, now_s: float) -> None:
        self.frames += 1
        _count(self._frame_times, now_s)

    def result(self, now_s: float, result: NodeResult) -> None:
        self.results += 1
        self.dropped += result.dropped
        _count(self._result_times, now_s)
        self._delays_ms.append(result.delay_ms)
        self._ages_ms.append(result.age_ms)
        self._grounding_ms = result.latency_ms
        self._failed = None

    def failure(self, message: str) -> None:
        self.failures += 1
        self._failed = message

    def describe(
        self, now_s: float, enabled: bool, query: str | None, power: tuple[float | None, str | None]
    ) -> Diagnostics:
        frames_hz, results_hz = (_rate(times, now_s) for times in (self._frame_times, self._result_times))
        level, message = self._judge(frames_hz, results_hz, enabled and query is not None)
        return Diagnostics(
            level=level,
            message=message,
            enabled=enabled,
            query=query,
            frames_hz=frames_hz,
            results_hz=results_hz,
            frames=self.frames,
            results=self.results,
            dropped=self.dropped,
            delay_ms_p50=_percentile(self._delays_ms, 50),
            delay_ms_p99=_percentile(self._delays_ms, 99),
            age_ms_p99=_percentile(self._ages_ms, 99),
            grounding_ms=self._grounding_ms,
            failures=self.failures,
            power_w=power[0],
            power_reason=power[1],
        )

    def _judge(self, frames_hz: float, results_hz: float, busy: bool) -> tuple[Level, str]:
        if self._failed is not None:
            return "error", self._failed
        if frames_hz == 0:
            return "warn", f"no frame came in the last {RATE_S:g} s"
        if busy and results_hz == 0:
            return "warn", f"no result in the last {RATE_S:g} s"
        return "ok", "following" if busy else "idle"


def _count(times: deque[float], now_s: float) -> None:
    """Note a moment, and forget those that no rate is told over any more."""
    times.append(now_s)
    while times[0] < now_s - RATE_S:
        times.popleft()


def _rate(times: deque[float], now_s: float) -> float:
    return sum(at_s >= now_s - RATE_S for at_s in times) / RATE_S


def _percentile(values: deque[float], share: float) -> float | None:
    return float(np.percentile(list(values), share)) if values else None
