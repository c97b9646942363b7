"""The power that a device draws right now, for diagnostics: as reported, without the error bounds of a profile."""

from __future__ import annotations

import time
from collections.abc import Callable

from wise_edge.errors import DeviceError
from wise_edge.power.find import find_sources
from wise_edge.power.sources import PowerSource, total_of


class PowerGauge:
    """Reads the source of power that counts on this machine.

    Args:
        source: the source to read; None for none.
        reason: why there is no source.
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
        """Return power in W and None, or None and a reason; of a counter, the mean power since its last reading."""
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
            return None, "a counter yields power from its second reading on"
        power_w = (total - last[1]) / (now_s - last[0])
        return (power_w, None) if power_w >= 0 else (None, "the counter was reset")
