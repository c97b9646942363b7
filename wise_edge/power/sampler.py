"""Reading a power source in a thread next to the work that is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from struct import Struct
from threading import Event, Thread

import numpy as np

from wise_edge.errors import DeviceError
from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerTrace

FASTEST_S = 0.008
"""Pause between two readings of a source that changes faster, or at an unknown rate: waking a thread takes 50 µs of a
busy core, so a pause of 5 ms took 1.5 % of one (`benchmarks/profile_overhead.py`)."""
_JITTER = 0.2  # share of a pause by which it is varied, either way
_BLOCK = 1 << 14  # readings for which memory is allocated at a time


class PowerSampler:
    """Reads a source in a thread of its own, at the source's pace.

    The thread does little more than read: it wakes up hundreds of times a second, and each time evicts the measured
    work from the caches (`benchmarks/profile_overhead.py`). The pauses are varied, so that readings do not keep time
    with the load.

    Args:
        source: the source to read.
        clock: seconds; the windows of `PowerTrace.energy` must use the same clock.
        wait: waits the given number of seconds; returns True when sampling should end.
        seed: seed of the pauses' variation.
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
        """Read in a thread while the block runs."""
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
        """Pause reading while the block runs."""
        self._awake.clear()
        try:
            yield
        finally:
            self._awake.set()

    def sample(self) -> None:
        """Read until `wait` says to end."""
        wait = self._wait
        for pause_s in self.readings():
            if wait(pause_s):
                return

    def readings(self) -> Iterator[float]:
        """Read once per step, and yield the seconds to wait before the next reading.

        A sensor may fail for a moment (its bus is busy, its driver wakes up), so a reading that fails is left out.
        """
        read, clock, uniform, pack = self._source.read, self._clock, self._random.random, self._row
        failed = (math.nan,) * len(self._source.parts)
        shortest_s, spread_s = self.pause_s * (1 - _JITTER), self.pause_s * 2 * _JITTER
        while self._awake.wait():
            before = clock()
            try:
                values, self._lost = read(), None
            except DeviceError as error:
                values, self._lost = failed, str(error)
            if (end := (self._count + 1) * pack.size) > len(self._rows):
                self._rows = self._rows + bytearray(_BLOCK * pack.size)  # a copy: another thread may read the old one
            pack.pack_into(self._rows, end - pack.size, (before + clock()) / 2, *values)
            self._count += 1
            yield shortest_s + spread_s * uniform()

    def trace(self) -> PowerTrace:
        """Return the readings so far."""
        rows = np.frombuffer(bytes(self._rows[: self._count * self._row.size])).reshape(-1, 1 + len(self._source.parts))
        total = rows[:, [1 + part for part in self._source.total]].sum(axis=1)  # other parts may be NaN
        sane = np.isfinite(total) & (total >= 0)
        kept = rows[sane]
        return PowerTrace(self._source, kept[:, 0], kept[:, 1:], int((~sane).sum()), self._lost)

    def _sleep(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self._stopped
