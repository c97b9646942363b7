"""The power that a device takes now, for diagnostics: as it is told, without the certainty of a profile."""

from __future__ import annotations

import time
from collections.abc import Callable

from wise_edge.errors import DeviceError
from wise_edge.power.find import find_sources
from wise_edge.power.sources import PowerSource, total_of


class PowerGauge:
    """Reads the first source of power of this machine.

    Args:
        source: what tells power; None for none.
        reason: why there is none.
        clock: seconds.
    """

    def __init__(
        self, source: PowerSource | None, reason: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source, self._reason, self._clock = source, reason, clock
        self._last: tuple[float, float] | None = None

    @classmethod
    def find(cls, on_gpu: bool = True) -> PowerGauge:
        """Return a gauge on the best source of this machine, or one that says why there is none.

        Args:
            on_gpu: whether a GPU does some of the work, if there is one (`Session.on_gpu`).
        """
        sources, reason = find_sources(on_gpu)
        return cls(sources[0] if sources else None, reason)

    def read(self) -> tuple[float | None, str | None]:
        """Return W and None, or None and the reason; a counter gives the mean since it was last read."""
        if self._source is None:
            return None, self._reason
        try:
            total = total_of(self._source, self._source.read())
        except DeviceError as error:
            return None, str(error)
        if total is None:
            return None, self._source.reason
        if self._source.kind == "power":
            return total, None
        now_s, last = self._clock(), self._last
        self._last = now_s, total
        if last is None or now_s <= last[0]:
            return None, "a counter tells power from its second reading on"
        power_w = (total - last[1]) / (now_s - last[0])
        return (power_w, None) if power_w >= 0 else (None, "the counter began anew")
