"""The energy of windows of work, from everything that tells this device's power.

Work that is shorter than a sensor can resolve is done again and again, alone, until a window of it is long enough, and
what the window took is divided. Windows are only marked while the work runs; what they took is told at the end, when
every reading of the sensors, or of a wall meter's log, is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerSampler, PowerTrace
from wise_edge.profiling.wall_meter import read_wall_meter

WINDOW_S = 1.5
MOST_WINDOWS = 4
"""How many times its length a window grows to, until its energy is sure by `wise_edge.power.trace.MOST_ERROR`."""
MOST_ERROR = 0.05
"""Share of an energy that may still be uncertain then; it is told beside it."""
_STEP_S = 0.05
"""By how much the system's clock may drift from the monotonic one before a wall meter's times are not believed."""


@dataclass(frozen=True)
class Window:
    """A stretch of time in which one thing was done again and again.

    Attributes:
        start_s: by the meter's clock.
        end_s: likewise.
        times: how often it was done.
    """

    start_s: float
    end_s: float
    times: int

    @property
    def length_s(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class PartEnergy:
    """What doing one thing once takes, by one source.

    Attributes:
        energy_j: of what the source measures (a Jetson's rails the board, NVML the GPU alone); None where it is not
            measurable.
        net_j: less what the device takes idle in that time.
        reason: why there is none.
        times: how often it was done in the window.
        window_s: how long that took.
        samples: readings in the window.
        largest_gap_s: longest time between two of them.
        error_share: what the energy may be wrong by, as a share of it.
    """

    energy_j: float | None
    net_j: float | None
    reason: str | None
    times: int
    window_s: float
    samples: int
    largest_gap_s: float
    error_share: float | None


def _unmeasured(reason: str) -> PartEnergy:
    return PartEnergy(None, None, reason, 0, 0.0, 0, 0.0, None)


_UNREACHED = _unmeasured("the profile ended before it was measured")


@dataclass(frozen=True)
class SourceFacts:
    """How a source was read over the whole run.

    Attributes:
        name: of the source.
        kind: "power" or "energy", what it gives.
        parts: what it measures.
        total: which of them make the total.
        interval_s: how often its readings change; None where that is unknown.
        resolution: smallest step between two readings of the total, W or J; None where it never moved.
        readings: how many were kept.
        dropped: how many made no sense.
        largest_gap_s: longest time between two readings in a window; None without a window.
        idle_before_w: what the device took idle before the work; None where that is not measurable.
        idle_after_w: likewise after it.
        lost: why it could not be read to the end; None where it could.
    """

    name: str
    kind: str
    parts: tuple[str, ...]
    total: tuple[str, ...]
    interval_s: float | None
    resolution: float | None
    readings: int
    dropped: int
    largest_gap_s: float | None
    idle_before_w: float | None
    idle_after_w: float | None
    lost: str | None


class Meter:
    """Marks windows of work, and tells their energy when all is done.

    Args:
        sources: what is read while the work runs; the first is the one that counts, others are for comparison.
        reason: why there is none.
        wall_meter: the log of an outside meter, a CSV file that is read at the end and counts first.
        window_s: how long a window is at least.
        clock: seconds.
        pause: waits so many seconds.
        unix_clock: seconds since 1970, the clock of the wall meter's log.
        make_sampler: reads a source beside the work, by a clock.
    """

    def __init__(
        self,
        sources: Sequence[PowerSource] = (),
        reason: str = "",
        *,
        wall_meter: Path | None = None,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
        unix_clock: Callable[[], float] = time.time,
        make_sampler: Callable[[PowerSource, Callable[[], float]], PowerSampler] = PowerSampler,
    ) -> None:
        self.reason = None if sources or wall_meter else reason
        self._wall_meter = wall_meter
        self._window_s = window_s
        self._clock, self._pause, self._unix_clock = clock, pause, unix_clock
        self._samplers = [make_sampler(source, clock) for source in sources]
        self._idle: list[Window] = []
        self._windows: list[Window] = []
        self._margin_s = 4 * max((sampler.pause_s for sampler in self._samplers), default=0.0)
        self.traces: list[PowerTrace] = []

    @contextmanager
    def running(self) -> Iterator[Meter]:
        """Read the sources while the block runs, and what the device takes idle before and after it.

        Raises:
            UsageError: the wall meter's log cannot be read when the block has ended.
        """
        offset_s = self._unix_clock() - self._clock()
        try:
            with ExitStack() as stack:
                for sampler in self._samplers:
                    stack.enter_context(sampler.running())
                self._rest()
                yield self
                self._rest()
        finally:  # also where the block was interrupted: what was measured is told
            self.traces = [sampler.trace() for sampler in self._samplers]
            if not self.traces and self._wall_meter is not None:
                self.reason = "the wall meter's log was not read"
        if self._wall_meter is not None:
            drift_s = self._unix_clock() - self._clock() - offset_s
            stepped = f"the system's clock was set by {drift_s:+.2f} s during the run: the log's times do not hold"
            reason = stepped if abs(drift_s) > _STEP_S else None
            self.traces.insert(0, read_wall_meter(self._wall_meter, -offset_s, reason))
            self.reason = None

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Read nothing while the block runs: a latency is then nobody's but the work's."""
        with ExitStack() as stack:
            for sampler in self._samplers:
                stack.enter_context(sampler.resting())
            yield
        self._pause(self._margin_s)

    def record(self, work: Callable[[], object], turns: int = 1) -> Window | None:
        """Do something, at least once, until a window is long enough; None, and nothing done, without any source.

        Where the first source does not tell the window's energy surely, it goes on, to `MOST_WINDOWS` of its length.

        Args:
            work: what is done.
            turns: how often makes a round; a window holds whole ones.
        """
        if not self._samplers and self._wall_meter is None:
            return None
        times, start = 0, self._clock()
        for number in range(1, MOST_WINDOWS + 1):
            while times == 0 or self._clock() - start < number * self._window_s:
                for _ in range(turns):
                    work()
                times += turns
            window = Window(start, self._clock(), times)
            if self._wall_meter is not None or self._is_sure(window):
                break
        self._windows.append(window)
        return window

    def energy(self, window: Window | None, on_gpu: bool | None = None) -> tuple[PartEnergy, ...]:
        """Return what doing the thing of a window once took, by each source, once `running` has ended.

        Args:
            window: None where it was not reached.
            on_gpu: as `why_not`.
        """
        found = []
        for place, trace in enumerate(self.traces):
            refused = self.why_not(place, on_gpu)
            told = _UNREACHED if window is None else self._energy(trace, window)
            found.append(told if refused is None else _unmeasured(refused))
        return tuple(found)

    def why_not(self, place: int, on_gpu: bool | None) -> str | None:
        """Return why a source does not tell the energy of some work; None where it does.

        Sources are chosen for the first backend of a profile; another one may work elsewhere.

        Args:
            place: of the source in `traces`; behind the first, the processor's share is told of any work.
            on_gpu: whether the work runs on a GPU; None where that does not matter.
        """
        scope = self.traces[place].source.scope
        if scope == "gpu" and on_gpu is False:
            return "this runs on the processor, and the source measures the GPU alone; profile it by itself"
        if scope == "processor" and on_gpu and place == 0:
            return "this runs on a GPU, and the source measures the processor alone; profile it by itself"
        return None

    def idle_w(self, trace: PowerTrace) -> tuple[float | None, float | None]:
        """Return what the device took idle before and after the work."""
        found: list[float | None] = []
        for window in self._idle:
            energy = trace.energy(window.start_s, window.end_s, MOST_ERROR)
            found.append(None if energy.energy_j is None else energy.energy_j / window.length_s)
        before, after = [*found, None, None][:2]
        return before, after

    def facts(self) -> list[SourceFacts]:
        """Return how each source was read, once `running` has ended."""
        return [self._facts(trace) for trace in self.traces]

    def _rest(self) -> None:
        """Let the device be idle for a while; readings must reach beyond the window's edges, a counter's moves too."""
        self._pause(self._margin_s)
        if (window := self.record(lambda: self._pause(self._window_s))) is not None:
            self._idle.append(window)
        self._pause(self._margin_s)

    def _is_sure(self, window: Window) -> bool:
        """Whether the first source tells what a window took, as far as it was read by now."""
        trace = self._samplers[0].trace()
        if not len(trace.times_s):
            return False
        return trace.energy(window.start_s, min(window.end_s, float(trace.times_s[-1]))).energy_j is not None

    def _energy(self, trace: PowerTrace, window: Window) -> PartEnergy:
        found = trace.energy(window.start_s, window.end_s, MOST_ERROR)
        known = [watts for watts in self.idle_w(trace) if watts is not None]
        each_j = None if found.energy_j is None else found.energy_j / window.times
        idle_j = sum(known) / len(known) * window.length_s / window.times if known else None
        net_j = None if each_j is None or idle_j is None else each_j - idle_j
        return PartEnergy(
            each_j,
            net_j,
            found.reason,
            window.times,
            window.length_s,
            found.samples,
            found.largest_gap_s,
            found.error_share,
        )

    def _facts(self, trace: PowerTrace) -> SourceFacts:
        source, times_s = trace.source, trace.times_s
        gaps_s = [trace.energy(window.start_s, window.end_s).largest_gap_s for window in self._windows]
        return SourceFacts(
            source.name,
            source.kind,
            source.parts,
            tuple(source.parts[place] for place in source.total),
            source.interval_s,
            trace.resolution(),
            len(times_s),
            trace.dropped,
            max(gaps_s, default=None),
            *self.idle_w(trace),
            trace.lost,
        )
