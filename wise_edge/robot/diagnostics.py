"""The state of a node: rates, drops, ages and failures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.results import HIDDEN, NOTHING

RATE_S = 5.0
"""Window over which rates are computed."""
_KEPT = 256  # last ages and delays, for percentiles
Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Diagnostics:
    """The state of a node.

    Attributes:
        level: "error" from a failure until the next result, "warn" without frames, results or an answer, else "ok".
        message: the reason for the level.
        enabled: whether the node works on the standing query.
        query: the standing query; None without one.
        frames_hz: rate of frames over the last `RATE_S`.
        results_hz: rate of results over the last `RATE_S`.
        frames: frames since the start.
        results: results since the start.
        dropped: frames without a result since the start.
        delay_ms_p50: median time from a frame's arrival to its result, over recent results; None without results.
        delay_ms_p99: 99th percentile of the same.
        age_ms_p99: 99th percentile of how much older the frame that the policy saw is; None without results.
        grounding_ms: phase to ms, of the last grounding.
        failures: failed queries.
        power_w: the device's power; None if it is not measured.
        power_reason: why the power is not measured; None if it is.
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


class Record:
    """Counts what the diagnostics report."""

    def __init__(self) -> None:
        self.frames = self.results = self.dropped = self.failures = 0
        self._frame_times: deque[float] = deque()
        self._result_times: deque[float] = deque()
        self._delays_ms: deque[float] = deque(maxlen=_KEPT)
        self._ages_ms: deque[float] = deque(maxlen=_KEPT)
        self._grounding_ms: dict[str, float] = {}
        self._failed: str | None = None
        self._seen: tuple[Level, str] = "ok", "following"

    def frame(self, now_s: float) -> None:
        """Count a frame."""
        self.frames += 1
        _count(self._frame_times, now_s)

    def result(self, now_s: float, result: NodeResult) -> None:
        """Count a result."""
        self.results += 1
        self.dropped += result.dropped
        _count(self._result_times, now_s)
        self._delays_ms.append(result.delay_ms)
        self._ages_ms.append(result.age_ms)
        self._grounding_ms = result.latency_ms
        self._failed = None
        self._seen = _judge_result(result)

    def failure(self, message: str) -> None:
        """Count a failed query."""
        self.failures += 1
        self._failed = message

    def describe(
        self, now_s: float, enabled: bool, query: str | None, power: tuple[float | None, str | None]
    ) -> Diagnostics:
        """Return the diagnostics."""
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
        return self._seen if busy else ("ok", "idle")


def _judge_result(result: NodeResult) -> tuple[Level, str]:
    if result.status == "unreadable":
        return "warn", f"no answer: {result.reason}"
    if result.status == "nothing":
        return "ok", HIDDEN if result.hidden else NOTHING
    return "ok", "following" if len(result.objects) == 1 else f"following {len(result.objects)} objects"


def _count(times: deque[float], now_s: float) -> None:
    """Append a time, and drop those outside the window of the rates."""
    times.append(now_s)
    while times[0] < now_s - RATE_S:
        times.popleft()


def _rate(times: deque[float], now_s: float) -> float:
    return sum(at_s >= now_s - RATE_S for at_s in times) / RATE_S


def _percentile(values: deque[float], share: float) -> float | None:
    return float(np.percentile(list(values), share)) if values else None
