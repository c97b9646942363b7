"""How a node fares: rates, drops, ages and failures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wise_edge.robot.results import NodeResult

RATE_S = 5.0
"""Over which rates are told."""
_KEPT = 256  # ages and delays that percentiles are told of
Level = Literal["ok", "warn", "error"]


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


class Record:
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

    def failure(self, message: str) -> None:
        """Count a query that failed."""
        self.failures += 1
        self._failed = message

    def describe(
        self, now_s: float, enabled: bool, query: str | None, power: tuple[float | None, str | None]
    ) -> Diagnostics:
        """Return how the node fares."""
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
