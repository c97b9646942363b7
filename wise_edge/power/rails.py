"""The power rails of a Jetson as a source of power, and which of them make up a board's total.

- Jetson Orin Nano and Orin NX measure their input as VDD_IN, which includes the other rails, as do TX2 and Xavier NX;
  the first Jetson Nano calls it POM_5V_IN.
- AGX Orin has no rail for the total; it is VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, which includes the memory's rail
  (https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html).
- AGX Thor measures its input as VIN on an INA238.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.jetson import Rail, read_rails
from wise_edge.power.sources import PowerSource
from wise_edge.power.sysfs import ROOT, UNREADABLE, NumberFile, read_number

_INPUTS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that include all others."""
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""Rails whose sum is AGX Orin's total."""
_POWER_FILES = {"ina238": ("power", 1e-6), "ina3221x": ("in_power", 1e-3)}
"""Prefix of the file with a rail's power, and its unit in W, for the sensors that have such a file."""


def find_jetson_rails(root: Path = ROOT) -> PowerSource | None:
    """Return a Jetson's power rails; None if this machine has none.

    Args:
        root: where the file system begins.
    """
    rails = tuple(read_rails(root))
    if not rails:
        return None
    labels = tuple(rail.label for rail in rails)
    reads = [_open_rail(rail) for rail in rails]
    total = _total_rails(labels)
    unknown = f"no total: the rails {', '.join(labels)} belong to no known board and may include one another"
    intervals_ms = [read_number(rail.folder / "update_interval") for rail in rails]
    return PowerSource(
        name=f"Jetson rails ({', '.join(sorted({rail.sensor for rail in rails}))})",
        kind="power",
        parts=labels,
        total=total,
        reason=None if total else unknown,
        interval_s=max((interval / 1e3 for interval in intervals_ms if interval), default=None),
        read=lambda: tuple(read() for read in reads),
        wrap_j=(None,) * len(rails),
    )


def _total_rails(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Return the indices of the rails that make up a board's total; none if the board is not known."""
    indices = {label: index for index, label in enumerate(labels)}
    for label in _INPUTS:
        if label in indices:
            return (indices[label],)
    return tuple(indices[label] for label in _AGX_ORIN) if set(_AGX_ORIN) <= set(indices) else ()


def _open_rail(rail: Rail) -> Callable[[], float]:
    """Return a function that reads a rail's power in W from the files of its kind of sensor."""
    folder, channel = rail.folder, rail.channel
    unreadable = f"the rail {rail.label} cannot be read in {folder}; {UNREADABLE}"
    milli_v, milli_a = (NumberFile(folder / f"{prefix}{channel}_input") for prefix in ("in", "curr"))
    prefix, unit_w = _POWER_FILES.get(rail.sensor, (None, 1.0))
    measured = None if prefix is None else NumberFile(folder / f"{prefix}{channel}_input")

    def read() -> float:
        if measured is not None and (power := measured.read()) is not None:
            return power * unit_w
        volts, amperes = milli_v.read(), milli_a.read()
        if volts is None or amperes is None:
            raise DeviceError(unreadable)
        return volts * amperes / 1e6

    return read
