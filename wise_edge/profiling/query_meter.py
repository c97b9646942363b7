"""The energy of one query beside its answer, where a sensor resolves a single query: it takes seconds on a robot.

`wise_edge.profiling.meter` repeats what is shorter; nothing is repeated here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from wise_edge.power.find import find_sources
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.windows import ACCEPTED_ERROR
from wise_edge.runtimes.base import SegmentationResult

SLOWEST_S = 0.1
"""How often a source's readings change at least: an older one may be of the time before the query."""


class QueryMeter:
    """Measures single queries by one source of power.

    Args:
        source: what is read; None for none.
        reason: why there is none.
        clock: seconds.
        pause: waits so many seconds.
        make_sampler: reads a source beside the query, by a clock.
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
            every = "now and then" if source.interval_s is None else f"every {source.interval_s:g} s"
            self._source = None
            self._reason = f"{source.name}: it moves {every}, too slow for one query; see wise-edge profile"

    @classmethod
    def find(cls, on_gpu: bool = True) -> QueryMeter:
        """Return a meter on the best source of this machine, or one that says why there is none.

        Args:
            on_gpu: whether a GPU does some of the work, if there is one (`Session.on_gpu`).
        """
        sources, reason = find_sources(on_gpu)
        return cls(sources[0] if sources else None, reason)

    def measure(self, ask: Callable[[], SegmentationResult]) -> SegmentationResult:
        """Answer a query while its power is read, which takes longer by what the source needs before and after it.

        Args:
            ask: answers the query.

        Returns:
            The answer with `energy_j` {"total": J}, what the device took meanwhile (idle included), or the reason why
            that is not measurable.

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
        told = f"{self._source.name}: {parts}"
        return replace(result, energy_j={"total": found.energy_j}, energy_reason=None, energy_source=told)
