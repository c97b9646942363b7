"""The node without a transport: frames and queries in, results out, each with the stamp and frame id of its frame.

A standing query is grounded at the policy's pace and followed at the camera's (`wise_edge.runtimes.tracking`). The
newest frame wins, and at most one waits (`NewestFrame`, which the tracking reads), so that memory does not grow however
slow the policy is. One-shot queries are answered on the newest frame, by the same session, between the standing query's
groundings. Adapters pass frames in and results out; nothing here depends on the transport.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, Thread

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_callable, check_number, describe
from wise_edge.errors import DeviceError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.policy.prompts import normalize_query
from wise_edge.power.gauge import PowerGauge
from wise_edge.robot.diagnostics import Diagnostics, Record
from wise_edge.robot.frames import Frame, Place, find_place
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked

_RETRY_S = 1.0


@dataclass(eq=False)
class _Standing:
    query: str
    cancel: Event
    reported: int  # place of the last frame with a result; frames from before the query are not drops


@dataclass(frozen=True, eq=False)
class _Arrival(Stamped):
    """A frame on its way through the tracking, which returns it with the result."""

    frame: Frame
    place: int  # among all frames that arrived, from 1
    arrived_s: float


class Node:
    """Answers queries on the frames of one camera; a context manager.

    Args:
        session: policy and segmenter; other nodes may share it.
        publish: called with each result of the standing query, in a thread of the node; if it raises, the diagnostics
            count a failure and the node continues.
        observe: called with each frame that got a result, and with that result; one-shot queries included.
        place: returns where in space a mask is.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant of each grounding by this deadline instead, and its pixels, as `Session.segment`
            does.
        memory: follow the standing query with the segmenter's memory, see `Session.track`.
        power: reads the device's power for the diagnostics; None looks for a sensor on this machine.
        clock: monotonic time in seconds.

    Raises:
        UsageError: an argument is wrong, both a variant and a deadline are given, or the segmenter has no memory.
    """

    def __init__(
        self,
        session: Session,
        publish: Callable[[NodeResult], None],
        *,
        observe: Callable[[Frame, NodeResult], None] | None = None,
        place: Callable[[npt.NDArray[np.bool_], Frame], Place | None] = find_place,
        variant: str | None = None,
        deadline_ms: float | None = None,
        memory: bool = False,
        power: PowerGauge | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(session, Session):
            raise UsageError(f"session must be a Session, got {describe(session)}")
        session.check_choice(variant, deadline_ms)
        check_callable(publish, "publish")
        if memory:
            session.open_memory()  # here, since a standing query that fails is tried again and again
        self._session, self._publish, self._observe, self._place = session, publish, observe, place
        self._variant, self._deadline_ms, self._memory = variant, deadline_ms, memory
        self._power = power or PowerGauge.find(session.on_gpu)
        self._clock = clock
        self._newest = NewestFrame()
        self._changed = self._newest.changed  # one lock, so that the tracking reads the newest frame itself
        self._standing: _Standing | None = None
        self._enabled, self._closed = True, False
        self._ended = Event()  # cancels one-shot queries
        self._record = Record()
        self._worker = Thread(target=self._work, name="node")

    def __enter__(self) -> Node:
        """Start the node's thread."""
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; the running query is cancelled before the policy's next call."""
        self.close()

    def finish(self, timeout_s: float) -> bool:
        """Answer the standing query on the newest frame and end it; later frames are ignored.

        Args:
            timeout_s: longest time to wait for the answer.

        Returns:
            Whether nothing is left to answer.
        """
        self._newest.end()
        with self._changed:
            return self._changed.wait_for(lambda: self._standing is None or not self._enabled, max(0.0, timeout_s))

    def close(self) -> None:
        """Stop the node; later frames and queries are ignored, running ones are cancelled."""
        self._ended.set()
        with self._changed:
            self._closed = True
            self._set_standing(None)
        if self._worker.is_alive():
            self._worker.join()

    def put(self, frame: Frame) -> None:
        """Accept a frame, which replaces the one that waits; returns at once.

        Raises:
            UsageError: it is no `Frame`, such as an image alone.
        """
        if not isinstance(frame, Frame):
            raise UsageError(f"put takes a frame, Frame.of(image, stamp_ns), got {describe(frame)}")
        with self._changed:
            if self._newest.over:
                return
            now_s = self._clock()
            self._record.frame(now_s)
            self._newest.put(_Arrival(frame.image, frame.stamp_s, frame, self._newest.place + 1, now_s))

    def follow(self, query: str | None) -> None:
        """Replace the standing query; None ends it.

        Raises:
            UsageError: the query is empty or too long.
        """
        words = None if query is None else normalize_query(query)
        with self._changed:
            self._set_standing(None if words is None or self._closed else self._begin(words))

    def enable(self, on: bool) -> None:
        """Work on the standing query, or pause it and free the device; one-shot queries are answered either way.

        Raises:
            UsageError: it is no boolean.
        """
        if not isinstance(on, bool):
            raise UsageError(f"enable takes True or False, got {describe(on)}")
        with self._changed:
            switched, self._enabled = on is not self._enabled, on
            if switched and self._standing is not None:
                self._set_standing(self._begin(self._standing.query))
            self._changed.notify_all()

    def ask(self, query: str, timeout_s: float = 5.0) -> NodeResult:
        """Answer a query on the newest frame, or on the first one that arrives.

        Args:
            query: what to find, in words.
            timeout_s: how long to wait for a first frame.

        Raises:
            UsageError: the query is no text, empty or too long, or the time is no number.
            DeviceError: no frame arrived, or the node is closed.
            QueryCancelledError: the node was closed meanwhile.
            WiseEdgeError: the query failed.
        """
        words = normalize_query(query)
        check_number(timeout_s, "timeout_s")
        with self._changed:
            self._changed.wait_for(lambda: self._newest.place or self._newest.over or self._closed, timeout_s)
            newest = self._newest.frame
            if self._closed:
                raise DeviceError("the node is closed")
            if newest is None:
                when = "before the camera ended" if self._newest.over else f"within {timeout_s:g} s"
                raise DeviceError(f"no frame came {when}; check that the camera publishes them here")
        arrival = _arrival_of(newest)
        frame = arrival.frame
        answer = self._session.segment(
            frame.image, words, self._variant, deadline_ms=self._deadline_ms, cancel=self._ended
        )
        result = NodeResult.of(frame, answer, find_place=lambda mask: self._place(mask, frame))
        result = replace(result, delay_ms=self._delay_ms(arrival))
        if self._observe is not None:
            self._observe(frame, result)
        return result

    def diagnostics(self) -> Diagnostics:
        """Return the node's current rates, drops and failures."""
        power = self._power.read()
        with self._changed:
            query = self._standing.query if self._standing else None
            return self._record.describe(self._clock(), self._enabled, query, power)

    def _begin(self, query: str) -> _Standing:
        """Return a standing query that starts with the newest frame."""
        return _Standing(query, Event(), max(0, self._newest.place - 1))

    def _set_standing(self, standing: _Standing | None) -> None:
        """Replace the standing query; the caller holds the lock."""
        if self._standing is not None:
            self._standing.cancel.set()
        self._standing = standing
        self._changed.notify_all()

    def _work(self) -> None:
        while (standing := self._next_standing()) is not None:
            try:
                found = self._session.track(
                    self._newest,
                    standing.query,
                    self._variant,
                    deadline_ms=self._deadline_ms,
                    memory=self._memory,
                    cancel=standing.cancel,
                )
                for tracked in found:
                    if not standing.cancel.is_set():
                        self._deliver(tracked, standing)
            except QueryCancelledError:
                continue
            except Exception as error:  # also from an engine: a robot's node must survive it
                with self._changed:
                    self._record.failure(explain(error))
                if not self._newest.over:
                    standing.cancel.wait(_RETRY_S)
                    continue
            with self._changed:
                if self._newest.over and self._standing is standing:
                    self._set_standing(None)

    def _next_standing(self) -> _Standing | None:
        """Wait for an enabled standing query; None if the node is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._enabled and self._standing is not None))
            return None if self._closed else self._standing

    def _deliver(self, tracked: Tracked, standing: _Standing) -> None:
        arrival, grounded = (_arrival_of(frame) for frame in (tracked.frame, tracked.grounded_frame))
        dropped = max(0, arrival.place - standing.reported - 1)
        standing.reported = max(standing.reported, arrival.place)
        frame = arrival.frame
        result = replace(
            NodeResult.of(frame, tracked.grounding, tracked, lambda mask: self._place(mask, frame)),
            query=standing.query,
            grounded_stamp_ns=grounded.frame.stamp_ns,
            dropped=dropped,
            delay_ms=self._delay_ms(arrival),
        )
        with self._changed:
            self._record.result(self._clock(), result)
        try:
            self._publish(result)
            if self._observe is not None:
                self._observe(frame, result)
        except Exception as error:  # a robot's node must survive a failed delivery
            with self._changed:
                self._record.failure(f"a result could not be published: {error}")

    def _delay_ms(self, arrival: _Arrival) -> float:
        return (self._clock() - arrival.arrived_s) * 1e3


def explain(error: Exception) -> str:
    """Return an error as one line; for one that is not a `WiseEdgeError`, add its type and log the traceback."""
    if isinstance(error, WiseEdgeError):
        return str(error)
    logging.getLogger(__name__).error("unexpected", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _arrival_of(frame: Stamped) -> _Arrival:
    if not isinstance(frame, _Arrival):
        raise RuntimeError("the tracking returned a frame that did not come from this node")
    return frame
