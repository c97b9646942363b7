"""Time that passes only when somebody waits, and samplers that read in it: no busy machine changes what they see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource


class VirtualTime:
    """A clock, what waits by it, and the options of a meter that lives in it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._due: dict[Iterator[float], float] = {}

    @property
    def options(self) -> dict[str, Any]:
        return {"clock": self.clock, "pause": self.pause, "make_sampler": self.make_sampler, "unix_clock": self.clock}

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        """Let time pass, and samplers read whenever they are due."""
        end_s = self.now_s + seconds
        while self._due and (next_s := min(self._due.values())) <= end_s:
            self.now_s = max(self.now_s, next_s)
            for readings in [readings for readings, due_s in self._due.items() if due_s <= self.now_s]:
                self._due[readings] = self.now_s + next(readings, math.inf)  # a source that is lost is not read again
        self.now_s = end_s

    def make_sampler(self, source: PowerSource, clock: Callable[[], float]) -> PowerSampler:
        time = self

        class Stepped(PowerSampler):
            @contextmanager
            def running(self) -> Iterator[PowerSampler]:
                readings = self.readings()
                time._due[readings] = time.now_s
                yield self
                del time._due[readings]

        return Stepped(source, clock)
