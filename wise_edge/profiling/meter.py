"""Measures the energy of work with every power source of this device.

Work that is too short for a sensor is repeated on its own until its window is long enough, and the energy of the window
is divided. While the work runs, windows are only marked; their energy is computed at the end, when all readings of the
sensors and the log of a wall meter are available.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerTrace
from wise_edge.profiling.wall_meter import read_wall_meter
from wise_edge.profiling.windows import PartEnergy, SourceFacts, Window, explain_scope

WINDOW_S = 1.5
MOST_WINDOWS = 4
"""A window is extended to at most this multiple of its length, until its energy is known within
`wise_edge.power.trace.STRICT_ERROR`."""
_STEP_S = 0.05
"""Drift between the system clock and the monotonic clock beyond which the times of a wall meter are not trusted."""
_LOG_LAG_S = 2.0
"""How long a wall meter that reads once a second may take until a reading after the last window is in its log."""
_NOT_REACHED = "the profile ended before it was measured"


class Meter:
    """Marks windows of work and reports their energy once all work is done.

    Args:
        sources: read while the work runs; the first one counts, the others are for comparison.
        reason: why there is no source.
        wall_meter: log of an external meter, a CSV file; it is read at the end and then counts first.
        window_s: minimum length of a window.
        clock: seconds.
        pause: waits for a number of seconds.
        unix_clock: seconds since 1970, the clock of the wall meter's log.
        make_sampler: makes what reads a source in the background, by a clock.
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
        """Read the sources while the block runs, and the idle power before and after it.

        Raises:
            UsageError: the wall meter's log cannot be read after the block.
        """
        began_s = self._clock()
        offset_s = self._unix_clock() - began_s
        try:
            with ExitStack() as stack:
                for sampler in self._samplers:
                    stack.enter_context(sampler.running())
                self._rest()
                yield self
                self._rest()
        finally:  # even if the block was interrupted: what was measured is reported
            self.traces = [sampler.trace() for sampler in self._samplers]
            if not self.traces and self._wall_meter is not None:
                self.reason = "the wall meter's log was not read"
        if self._wall_meter is not None:
            ended_s = self._clock()
            drift_s = self._unix_clock() - ended_s - offset_s
            stepped = f"the system clock was set by {drift_s:+.2f} s during the run, so the log's times do not match"
            reason = stepped if abs(drift_s) > _STEP_S else None
            self._pause(_LOG_LAG_S)
            during = began_s + offset_s, ended_s + offset_s
            self.traces.insert(0, read_wall_meter(self._wall_meter, -offset_s, reason, during))
            self.reason = None

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Read nothing while the block runs, so that its latency is that of the work alone."""
        with ExitStack() as stack:
            for sampler in self._samplers:
                stack.enter_context(sampler.resting())
            yield
        self._pause(self._margin_s)

    def record(self, work: Callable[[], object], turns: int = 1) -> Window | None:
        """Repeat some work, at least once, until its window is long enough.

        If the first source does not yet know the window's energy well enough, it is extended, up to `MOST_WINDOWS`
        times its length.

        Args:
            work: what is repeated.
            turns: repetitions that make a round; a window holds complete rounds.

        Returns:
            The window; None without any source, and then nothing is done.
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
        """Return the energy of one repetition in a window, by each source, once `running` has ended.

        Args:
            window: None if it was not reached.
            on_gpu: whether the work runs on a GPU; None if that does not matter.
        """
        found = []
        for place, trace in enumerate(self.traces):
            if (refused := self.why_not(place, on_gpu)) is not None:
                found.append(PartEnergy.missing(refused))
            elif window is None:
                found.append(PartEnergy.missing(_NOT_REACHED))
            else:
                found.append(PartEnergy.of(trace, window, self._idle))
        return tuple(found)

    def why_not(self, place: int, on_gpu: bool | None) -> str | None:
        """Return why the source at a place in `traces` does not cover some work; None if it does."""
        return explain_scope(self.traces[place].source, on_gpu, first=place == 0)

    def facts(self) -> list[SourceFacts]:
        """Return how each source was read, once `running` has ended."""
        return [SourceFacts.of(trace, self._windows, self._idle) for trace in self.traces]

    def _rest(self) -> None:
        """Leave the device idle for a while; readings, and a counter's steps, must extend past the window's edges."""
        self._pause(self._margin_s)
        if (window := self.record(lambda: self._pause(self._window_s))) is not None:
            self._idle.append(window)
        self._pause(self._margin_s)

    def _is_sure(self, window: Window) -> bool:
        """Whether the first source knows the energy of a window, as far as it has been read."""
        trace = self._samplers[0].trace()
        if not len(trace.times_s):
            return False
        return trace.energy(window.start_s, min(window.end_s, float(trace.times_s[-1]))).energy_j is not None
