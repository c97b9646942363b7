"""What tells the power of this machine, the best first."""

from __future__ import annotations

from collections.abc import Callable

from wise_edge.errors import DeviceError
from wise_edge.power.nvml import find_gpu_power
from wise_edge.power.sources import PowerSource, find_battery, find_jetson_rails, find_rapl

NOWHERE = "this machine tells its power nowhere that is known"
_NO_COUNTER = "nothing runs on a GPU, and this machine does not tell its processor's power"


def find_sources(on_gpu: bool = True) -> tuple[list[PowerSource], str]:
    """Return the sources to read, the one that counts first, and why there is none.

    A Jetson's rails are of the whole board, so nothing else is read there. On a desktop what works counts: its GPU,
    with the processor beside it, or the processor alone. Where that cannot be read, the other is not taken in its
    place: what it takes is not what the work does. A battery is the last resort.

    Args:
        on_gpu: whether a GPU does some of the work, if there is one.
    """
    refused: list[str] = []
    board = _ask(find_jetson_rails, refused)
    if board:
        return board, ""
    gpu = _ask(find_gpu_power, refused) if on_gpu else []
    parts = [] if refused else [*gpu, *_ask(find_rapl, refused)]
    return parts or _ask(find_battery, refused), "; ".join(refused) or (NOWHERE if on_gpu else _NO_COUNTER)


def _ask(
    find: Callable[[], PowerSource | None] | Callable[[], list[PowerSource]], refused: list[str]
) -> list[PowerSource]:
    try:
        found = find()
    except DeviceError as error:
        refused.append(str(error))
        return []
    return found if isinstance(found, list) else [source for source in [found] if source]
