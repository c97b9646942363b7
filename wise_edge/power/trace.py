"""Sampling a power source beside work, and the energy of windows of that work.

Power between two samples is taken to go straight from one to the other. What that may be wrong by is known: a sudden
step may lie anywhere between its samples, so that each pair of them is uncertain by half their difference times their
distance. The errors of many steps grow with the square root of their number, as long as samples do not keep time with
the load; so the pauses between them are varied on purpose. A counter of energy is uncertain at the edges of a window
only. Energy is given where three standard deviations of that are within a bound, and is not measurable otherwise: a
number is never guessed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from struct import Struct
from threading import Event, Thread

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wise_edge.errors import DeviceError
from wise_edge.power.sources import PowerSource

FASTEST_S = 0.008
"""Pause between two readings of a source that changes faster, or does not tell: waking a thread costs 50 µs of a busy
core, so that 5 ms took 1.5 % of one (`benchmarks/profile_overhead.py`)."""
STRICT_ERROR = 0.02
"""Share of a window's energy that may be uncertain."""
LEAST_SAMPLES = 5
_JITTER = 0.2  # share of a pause that it is varied by, either way
Floats = npt.NDArray[np.float64]
_BLOCK = 1 << 14  # samples that memory is asked for at a time
_SIGMAS = 3.0
_GAP = 4.0  # times the median distance of samples; what is further apart is a gap
_BRIEF = 3  # samples


@dataclass(frozen=True)
class Energy:
    """What a window of time took.

    Attributes:
        energy_j: of the device's total; None where it is not measurable.
        reason: why there is none.
        samples: readings in the window.
        largest_gap_s: longest time between two of them, the edges included.
        error_share: what the total may be wrong by, as a share of it; None without one.
    """

    energy_j: float | None
    reason: str | None
    samples: int
    largest_gap_s: float
    error_share: float | None


class PowerTrace:
    """Readings of a source over time.

    Args:
        source: what was read.
        times_s: float64 [N], rising.
        values: float64 [N, parts], as `source.read` gave them.
        dropped: readings that made no sense: not finite, or negative power.
        lost: why the source could not be read any more; None where it could to the end.
    """

    def __init__(
        self,
        source: PowerSource,
        times_s: Floats,
        values: Floats,
        dropped: int = 0,
        lost: str | None = None,
    ) -> None:
        self.source = source
        self.dropped = dropped
        self.lost = lost
        self.times_s, kept = (times_s, values) if source.kind == "power" else _moves(source, times_s, values)
        self._total: Floats = kept[:, list(source.total)].sum(axis=1)  # W, or J since the first reading
        self._brief_w, self._brief_hz = (0.0, 0.0)
        if source.kind == "power" and len(times_s) > _BRIEF:
            self._brief_w, self._brief_hz = _brief_loads(times_s, self._total)
        self._resets_s = _find_resets(source, times_s, values)
        self._late_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0

    def energy(self, start_s: float, end_s: float, most_error: float = STRICT_ERROR) -> Energy:
        """Return what the time from `start_s` to `end_s` took, by the clock of the samples."""
        inside = self.times_s[(self.times_s >= start_s) & (self.times_s <= end_s)]
        gap_s = float(np.diff([start_s, *inside, end_s]).max())
        if (refused := self._refuse(start_s, end_s, len(inside))) is not None:
            return Energy(None, refused, len(inside), gap_s, None)
        measure = self._integrate if self.source.kind == "power" else self._subtract
        total_j, error_j = measure(start_s, end_s)
        if not total_j > 0:
            return Energy(None, "the source reads no power", len(inside), gap_s, None)
        share = error_j / total_j
        if share > most_error:
            why = f"uncertain by {share:.0%} at this rate of samples, more than {most_error:.0%}"
            return Energy(None, why, len(inside), gap_s, share)
        return Energy(total_j, None, len(inside), gap_s, share)

    def power(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Return times in s and the total in W then, for an image of a stretch of time.

        Of a counter it is the mean between two of its moves, at the middle of them; without a total there is nothing.
        """
        around = self._around(start_s, end_s)
        times_s, total = self.times_s[around], self._total[around]
        if not self.source.total:
            return np.empty(0), np.empty(0)
        if self.source.kind == "energy":
            return (times_s[1:] + times_s[:-1]) / 2, np.diff(total) / np.diff(times_s)
        return times_s, total

    def resolution(self) -> float | None:
        """Return the smallest step between two readings of the total, W or J; None where it never moved."""
        steps = np.abs(np.diff(self._total))
        return float(steps[steps > 0].min()) if (steps > 0).any() else None

    def _refuse(self, start_s: float, end_s: float, samples: int) -> str | None:
        if self.source.reason is not None:
            return self.source.reason
        if not len(self.times_s) or start_s < self.times_s[0] or end_s > self.times_s[-1]:
            return self.lost or "the window reaches beyond the samples"
        if ((self._resets_s > start_s) & (self._resets_s <= end_s)).any():
            return "the counter began anew in the window: its driver was loaded again"
        if samples < LEAST_SAMPLES:
            return f"{samples} samples in {(end_s - start_s) * 1e3:.0f} ms, at least {LEAST_SAMPLES} are needed"
        return None

    def _around(self, start_s: float, end_s: float) -> slice:
        """Return the samples of a window, with the one before it and the one behind it."""
        first = int(np.searchsorted(self.times_s, start_s, "right")) - 1
        return slice(max(first, 0), int(np.searchsorted(self.times_s, end_s, "left")) + 1)

    def _integrate(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return energy and its uncertainty from samples of power."""
        around = self._around(start_s, end_s)
        times_s, total_w = self.times_s[around], self._total[around]
        at_s = np.concatenate([[start_s], times_s[1:-1], [end_s]])
        at_w = np.interp(at_s, times_s, total_w)
        energy_j = float(((at_w[1:] + at_w[:-1]) / 2 * np.diff(at_s)).sum())
        distances_s, steps_w = np.diff(times_s), np.abs(np.diff(total_w))
        # In a gap anything may have happened that happened elsewhere.
        is_gap = distances_s > _GAP * np.median(distances_s)
        steps_w = np.where(is_gap, np.maximum(steps_w, 2 * np.ptp(total_w)), steps_w)
        # A sensor that averages or lags by its interval blurs a step as far as a slow sampler does.
        blurred_s = np.maximum(distances_s, self.source.interval_s or 0.0)
        variance = ((steps_w * blurred_s) ** 2).sum()
        # Loads as short as a few samples, seen anywhere, may have been missed here.
        missed = max(1.0, self._brief_hz * (end_s - start_s))
        variance += missed * (self._brief_w * np.median(blurred_s)) ** 2
        return energy_j, _SIGMAS * math.sqrt(float(variance) / 12)

    def _subtract(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return energy and its uncertainty from a counter: where it stood between two moves is not known."""
        low_j, high_j = np.interp((start_s, end_s), self.times_s, self._total).tolist()
        variance = 0.0
        for edge_s in (start_s, end_s):
            place = int(np.clip(np.searchsorted(self.times_s, edge_s), 1, len(self.times_s) - 1))
            near = slice(max(place - 2, 0), place + 2)
            spans_s = np.diff(self.times_s[near])
            power_w = np.diff(self._total[near]) / spans_s
            # A move is seen late, by up to a pause; and power within its span may be that of the neighbors.
            variance += (power_w.max() * self._late_s) ** 2 + (np.ptp(power_w) * spans_s.max()) ** 2
        return high_j - low_j, _SIGMAS * math.sqrt(float(variance) / 12)


class PowerSampler:
    """Reads a source in a thread of its own, at its own pace.

    The thread does little more than read: what it wakes for, hundreds of times a second, finds the caches full of what
    is being measured (`benchmarks/profile_overhead.py`).

    Args:
        source: what to read.
        clock: seconds, the clock of the marks that windows are made of.
        wait: waits so many seconds; returns True where sampling is to end.
        seed: of the pauses' variation.
    """

    def __init__(
        self,
        source: PowerSource,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[float], bool] | None = None,
        seed: int = 0,
    ) -> None:
        self._source = source
        self._clock = clock
        self._stopped = False
        self._awake = Event()
        self._awake.set()
        self._wait = wait or self._sleep
        self._random = Random(seed)
        self.pause_s = max(FASTEST_S, (source.interval_s or 0.0) / 2)
        self._row = Struct(f"{1 + len(source.parts)}d")
        self._rows = bytearray(_BLOCK * self._row.size)
        self._count = 0
        self._lost: str | None = None

    @contextmanager
    def running(self) -> Iterator[PowerSampler]:
        """Sample while the block runs."""
        thread = Thread(target=self.sample, name="power", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped = True
            self._awake.set()
            thread.join()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Read nothing while the block runs."""
        self._awake.clear()
        try:
            yield
        finally:
            self._awake.set()

    def sample(self) -> None:
        """Read until told to end, or the source is lost."""
        wait = self._wait
        for pause_s in self.readings():
            if wait(pause_s):
                return

    def readings(self) -> Iterator[float]:
        """Read once for each turn, until the source is lost, and give how many seconds to wait for the next."""
        read, clock, uniform, pack = self._source.read, self._clock, self._random.random, self._row
        shortest_s, spread_s = self.pause_s * (1 - _JITTER), self.pause_s * 2 * _JITTER
        while self._awake.wait():
            before = clock()
            try:
                values = read()
            except DeviceError as error:
                self._lost = str(error)
                return
            if (end := (self._count + 1) * pack.size) > len(self._rows):
                self._rows = self._rows + bytearray(_BLOCK * pack.size)  # a copy: a reader may hold the old one
            pack.pack_into(self._rows, end - pack.size, (before + clock()) / 2, *values)
            self._count += 1
            yield shortest_s + spread_s * uniform()

    def trace(self) -> PowerTrace:
        """Return what was read so far."""
        rows = np.frombuffer(bytes(self._rows[: self._count * self._row.size])).reshape(-1, 1 + len(self._source.parts))
        sane = (np.isfinite(rows) & (rows >= 0)).all(axis=1)
        kept = rows[sane]
        return PowerTrace(self._source, kept[:, 0], kept[:, 1:], int((~sane).sum()), self._lost)

    def _sleep(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self._stopped


def _brief_loads(times_s: Floats, total_w: Floats) -> tuple[float, float]:
    """Return the height of peaks and dips narrower than `_BRIEF` samples, and how many there are a sampled second.

    What is below a tenth of the mean is noise.
    """
    padded = np.pad(total_w, _BRIEF - 1, mode="edge")
    floor = sliding_window_view(sliding_window_view(padded, _BRIEF).min(axis=1), _BRIEF).max(axis=1)
    ceiling = sliding_window_view(sliding_window_view(padded, _BRIEF).max(axis=1), _BRIEF).min(axis=1)
    heights_w = np.maximum(total_w - floor, ceiling - total_w)
    brief = heights_w > 0.1 * total_w.mean()
    if not brief.any():
        return 0.0, 0.0
    distances_s = np.diff(times_s)
    sampled_s = distances_s[distances_s <= _GAP * np.median(distances_s)].sum()  # while the sampler rests it sees none
    return float(heights_w.max()), float(brief.sum() / sampled_s)


def _find_resets(source: PowerSource, times_s: Floats, values: Floats) -> Floats:
    """Return when a counter that never begins anew by itself had fallen."""
    lasting = [part for part, wrap_j in enumerate(source.wrap_j) if wrap_j is None]
    if source.kind == "power" or not lasting or len(times_s) < 2:
        return np.empty(0)
    fell: Floats = times_s[1:][(np.diff(values[:, lasting], axis=0) < 0).any(axis=1)]
    return fell


def _moves(source: PowerSource, times_s: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the readings at which a counter had moved, with what it lost where it began anew."""
    if len(times_s) < 2:
        return times_s, values
    steps_j = np.diff(values, axis=0)
    for part, wrap_j in enumerate(source.wrap_j):
        if wrap_j is not None:
            steps_j[:, part] += wrap_j * (steps_j[:, part] < 0)
    moved = np.flatnonzero(steps_j.any(axis=1)) + 1
    return times_s[moved], np.cumsum(steps_j, axis=0)[moved - 1]
