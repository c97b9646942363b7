"""Measures the energy of a single query, if it is long enough for the sensor: on a robot it takes seconds.

`wise_edge.profiling.meter` repeats shorter work; nothing is repeated here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from wise_edge.power.find import find_sources
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.windows import ACCEPTED_ERROR
from wise_edge.runtimes.results import SegmentationResult

SLOWEST_S = 0.1
"""Longest interval between readings of a usable source: with slower ones, a reading may predate the query."""


class QueryMeter:
    """Measures single queries with one power source.

    Args:
        source: what is read; None without a source.
        reason: why there is no source.
        clock: seconds.
        pause: waits for a number of seconds.
        make_sampler: makes what reads a source in the background, by a clock.
    """

    def __init__(
        self,
        source: PowerSource | None,
        reason: str = "",
        *,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
        make_sampler: Callable[[PowerSource, Callable[[], float]], PowerSampler] = PowerSampler,
    ) -> None:
        self._source, self._reason, self._clock, self._pause = source, reason, clock, pause
        self._make_sampler = make_sampler
        if source is not None and not (source.interval_s and source.interval_s <= SLOWEST_S):
            every = "at unknown intervals" if source.interval_s is None else f"every {source.interval_s:g} s"
            self._source = None
            self._reason = f"{source.name} changes {every}, too slowly for one query; use 'wise-edge profile' instead"

    @classmethod
    def find(cls, on_gpu: bool = True) -> QueryMeter:
        """Return a meter with the best source of this machine, or one that reports why there is none.

        Args:
            on_gpu: whether some of the work runs on a GPU (`Session.on_gpu`).
        """
        sources, reason = find_sources(on_gpu)
        return cls(sources[0] if sources else None, reason)

    def measure(self, ask: Callable[[], SegmentationResult]) -> SegmentationResult:
        """Answer a query while power is read; the source adds some time before and after it.

        Args:
            ask: answers the query.

        Returns:
            The answer with `energy_j` {"total": J}, the energy of the device meanwhile (idle power included), or with
            the reason why it cannot be measured.

        Raises:
            WiseEdgeError: as `ask`.
        """
        if self._source is None:
            return replace(ask(), energy_reason=self._reason)
        sampler = self._make_sampler(self._source, self._clock)
        margin_s = 4 * sampler.pause_s
        with sampler.running():
            self._pause(margin_s)
            start_s = self._clock()
            result = ask()
            end_s = self._clock()
            self._pause(margin_s)
        found = sampler.trace().energy(start_s, end_s, ACCEPTED_ERROR)
        if found.energy_j is None:
            return replace(result, energy_reason=f"{self._source.name}: {found.reason}")
        parts = " + ".join(self._source.parts[place] for place in self._source.total)
        source = f"{self._source.name}: {parts}"
        return replace(result, energy_j={"total": found.energy_j}, energy_reason=None, energy_source=source)
