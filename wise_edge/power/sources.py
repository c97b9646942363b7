"""A source of power or energy readings, with a value for each part of a device that it measures.

Which parts make up the device's total is a rule of the board or the sensor, not always the sum of all parts; the module
of each source states its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from wise_edge.errors import DeviceError

Kind = Literal["power", "energy"]
"""Whether a source reads power in W, or energy in J since some moment."""
Scope = Literal["machine", "gpu", "processor"]
"""Whether a source measures the entire machine, its GPU alone, or its processor alone."""


@dataclass(frozen=True)
class PowerSource:
    """A sensor or counter of power or energy.

    Attributes:
        name: name for a report, for example "Jetson rails (ina3221)".
        kind: what `read` returns.
        parts: names of what is measured, in the order of `read`.
        total: indices into `parts` whose sum is the device's total; empty if that is not known.
        reason: why there is no total; None if there is one.
        interval_s: how often the readings change; None if that is unknown.
        read: returns a value for each part, in W or in J since some moment; NaN for a part that does not count in the
            total and cannot be read; raises `DeviceError` if the total cannot be read now.
        wrap_j: for each part, the value at which a counter of energy wraps around to 0; None if it does not.
        scope: which part of the machine it measures.
    """

    name: str
    kind: Kind
    parts: tuple[str, ...]
    total: tuple[int, ...]
    reason: str | None
    interval_s: float | None
    read: Callable[[], tuple[float, ...]]
    wrap_j: tuple[float | None, ...]
    scope: Scope = "machine"


def read_parts(reads: Sequence[Callable[[], float]], total: Sequence[int]) -> Callable[[], tuple[float, ...]]:
    """Return a function that reads all parts of a source, as `PowerSource.read` does.

    Args:
        reads: for each part, a function that reads it and raises `DeviceError` if it cannot.
        total: indices of the parts that count. Another part is not read again once it could not be read.
    """
    left: list[Callable[[], float] | None] = list(reads)

    def read() -> tuple[float, ...]:
        values = []
        for part, read_part in enumerate(left):
            try:
                values.append(math.nan if read_part is None else read_part())
            except DeviceError:
                if part in total:
                    raise
                left[part] = None
                values.append(math.nan)
        return tuple(values)

    return read


def total_of(source: PowerSource, values: Sequence[float]) -> float | None:
    """Return the device's total from a source's values; None if the rule for it is not known."""
    return math.fsum(values[index] for index in source.total) if source.total else None
