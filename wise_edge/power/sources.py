"""A source of power or energy readings, with a value for each part of a device that it measures.

Which parts make up the device's total is a rule of the board or the sensor, not always the sum of all parts; the module
of each source states its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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
        read: returns a value for each part, in W or in J since some moment; raises `DeviceError` if it no longer can.
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


def total_of(source: PowerSource, values: Sequence[float]) -> float | None:
    """Return the device's total from a source's values; None if the rule for it is not known."""
    return math.fsum(values[index] for index in source.total) if source.total else None
