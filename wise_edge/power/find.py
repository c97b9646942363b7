"""Which sources of power count on this machine, the best first."""

from __future__ import annotations

from collections.abc import Callable

from wise_edge.errors import DeviceError
from wise_edge.power.battery import find_battery
from wise_edge.power.nvml import find_gpu_power
from wise_edge.power.rails import find_jetson_rails
from wise_edge.power.rapl import find_rapl
from wise_edge.power.sources import PowerSource

NOWHERE = "this machine has no known sensor of its power"
_NO_COUNTER = "the work does not run on a GPU, and this machine does not report its processor's power"


def find_sources(on_gpu: bool = True) -> tuple[list[PowerSource], str]:
    """Return the sources to read, the one that counts first, and why there is none.

    A Jetson's rails measure the entire board, so nothing else is read there. On a desktop, the device that works
    counts: its GPU, with the processor as a second source, or the processor alone. If that device cannot be read, the
    other one does not replace it, since its power is not that of the work. A battery is the last resort.

    Args:
        on_gpu: whether a GPU does some of the work, if there is one.

    Returns:
        The sources, and a reason that applies if there are none.
    """
    failures: list[str] = []
    board = _ask(find_jetson_rails, failures)
    if board:
        return board, ""
    gpu = _ask(find_gpu_power, failures) if on_gpu else []
    parts = [] if failures else [*gpu, *_ask(find_rapl, failures)]
    return parts or _ask(find_battery, failures), "; ".join(failures) or (NOWHERE if on_gpu else _NO_COUNTER)


def _ask(
    find: Callable[[], PowerSource | None] | Callable[[], list[PowerSource]], failures: list[str]
) -> list[PowerSource]:
    try:
        found = find()
    except DeviceError as error:
        failures.append(str(error))
        return []
    return found if isinstance(found, list) else [source for source in [found] if source]
