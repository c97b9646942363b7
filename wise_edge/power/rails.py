"""The power rails of a Jetson as a source of power, and which of them make up a board's total.

- Orin Nano and Orin NX measure their input as VDD_IN, which includes the other rails, as do TX2 and Xavier NX; the
  first Jetson Nano calls it POM_5V_IN.
- AGX Orin has no rail for the total; it is VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, which includes the memory's rail
  (https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html).
- AGX Xavier has none either. Its module has two inputs, SYS_VIN_HV and SYS_VIN_MV; the second is measured as SYS5V, and
  the other five rails hang on the first (Jetson AGX Xavier Series Product Design Guide, DG-09840, sections 5.2 and
  5.6.2; https://github.com/energymon/energymon/blob/main/jetson/JetsonPowerRails.md reads it likewise).
- AGX Thor measures its input as VIN on an INA238. Without it, its other rails have no known total.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.jetson import Rail, read_rails
from wise_edge.power.sources import PowerSource, read_parts
from wise_edge.power.sysfs import ROOT, NumberFile, read_number

_TOTALS = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ("VIN",),
)
"""Rails whose sum is a board's total, the first that a board has. VIN comes last, since a carrier board of one's own
may use an INA238 for something else."""
_POWER_FILES = {"ina238": ("power", 1e-6), "ina3221x": ("in_power", 1e-3)}
"""Prefix of the file with a rail's power, and its unit in W, for the sensors that have such a file."""
_INTERVALS_MS = {"ina238": 50.5}
"""How often a sensor's readings change if its driver does not say: Linux sets an INA238 to 16 averages of three
conversions of 1052 µs (https://github.com/torvalds/linux/blob/v6.8/drivers/hwmon/ina238.c, INA238_ADC_CONFIG_DEFAULT).
"""


def find_jetson_rails(root: Path = ROOT) -> PowerSource | None:
    """Return a Jetson's power rails; None if this machine has none.

    A rail outside of the board's total that cannot be read is left out.

    Args:
        root: where the file system begins.
    """
    found = tuple(read_rails(root))
    if not found:
        return None
    counted = _total_rails([rail.label for rail in found])
    reads = {rail: _open_rail(rail) for index, rail in enumerate(found) if index in counted or _is_readable(rail)}
    rails = tuple(reads)
    labels = tuple(rail.label for rail in rails)
    total = tuple(rails.index(found[index]) for index in counted)
    names = ", ".join(rail.label for rail in found)
    unknown = f"no total: the rails {names} belong to no known board and may include one another"
    intervals_ms = [_interval_ms(rail) for rail in ([rails[index] for index in total] or rails)]
    return PowerSource(
        name=f"Jetson rails ({', '.join(sorted({rail.sensor for rail in found}))})",
        kind="power",
        parts=labels,
        total=total,
        reason=None if total else unknown,
        interval_s=max((interval / 1e3 for interval in intervals_ms if interval), default=None),
        read=read_parts(list(reads.values()), total),
        wrap_j=(None,) * len(rails),
    )


def _total_rails(labels: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the rails that make up a board's total; none if the board is not known."""
    known = (rule for rule in _TOTALS if all(labels.count(label) == 1 for label in rule))
    return tuple(labels.index(label) for label in next(known, ()))


def _interval_ms(rail: Rail) -> float | None:
    """Return how often a rail's readings change; None if that is unknown."""
    return read_number(rail.folder / "update_interval") or _INTERVALS_MS.get(rail.sensor)


def _is_readable(rail: Rail) -> bool:
    try:
        _open_rail(rail)()
    except DeviceError:
        return False
    return True


def _open_rail(rail: Rail) -> Callable[[], float]:
    """Return a function that reads a rail's power in W: as its sensor computes it, else as voltage times current."""

    def file(prefix: str) -> NumberFile:
        return NumberFile(rail.folder / f"{prefix}{rail.channel}_input")

    milli_v, milli_a = file("in"), file("curr")
    ways: list[Callable[[], float]] = [lambda: milli_v.read() * milli_a.read() / 1e6]
    if rail.sensor in _POWER_FILES:
        prefix, unit_w = _POWER_FILES[rail.sensor]
        measured = file(prefix)
        ways.insert(0, lambda: measured.read() * unit_w)

    def read() -> float:
        failures = []
        for way in ways:
            try:
                return way()
            except DeviceError as error:
                failures.append(error)
        raise DeviceError(f"the rail {rail.label}: {failures[0]}") from failures[0]

    return read
