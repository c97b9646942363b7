"""Where a device tells what power it takes, and how its readings become one total.

A source gives power in W (Jetson's rails, NVML's gauge, a battery) or energy in J since some moment (NVML's and a
processor's counters), a value for each of its parts. Which parts make the total is a rule of the board, no sum of all:

- Jetson Orin Nano and Orin NX measure their input as VDD_IN, which holds the other rails, as TX2 and Xavier NX do; the
  first Jetson Nano calls it POM_5V_IN.
- AGX Orin has no total; it is VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, which holds the memory's rail
  (https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html).
- AGX Thor measures its input as VIN on an INA238.
- RAPL's "package" domains hold their cores; memory ("dram") comes on top, "psys" holds everything
  (https://docs.kernel.org/power/powercap/powercap.html).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from wise_edge.errors import DeviceError
from wise_edge.power.jetson import ROOT, Rail, read_rails

Kind = Literal["power", "energy"]
"""Whether a source gives W, or J since some moment."""
Scope = Literal["machine", "gpu", "processor"]
"""Whether a source measures all of a machine, its GPU alone, or its processor alone."""

_INPUTS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that hold all others."""
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""Rails that are AGX Orin's total together."""
_UNREADABLE = "run as root, or let your user read it with a udev rule"


@dataclass(frozen=True)
class PowerSource:
    """Something that tells power or energy.

    Attributes:
        name: for a report, for example "Jetson rails (ina3221)".
        kind: what `read` gives.
        parts: names of what is measured, in the order of `read`.
        total: places in `parts` whose sum is the device's total; empty where that is not known.
        reason: why there is no total; None where there is one.
        interval_s: how often the readings change; None where that is unknown.
        read: gives a value for each part, W or J since some moment; raises `DeviceError` where it cannot any more.
        wrap_j: for each part, where a counter of energy begins anew; None where it does not.
        scope: what of the machine it measures.
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


def find_jetson_rails(root: Path = ROOT) -> PowerSource | None:
    """Return a Jetson's power rails; None where this machine has none."""
    rails = tuple(read_rails(root))
    if not rails:
        return None
    labels = tuple(rail.label for rail in rails)
    reads = [_read_rail(rail) for rail in rails]
    total = _total_rails(labels)
    unknown = f"the rails {', '.join(labels)} are of no board that is known, and may hold one another: no total"
    intervals_ms = [_number(rail.folder / "update_interval") for rail in rails]
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


def find_rapl(root: Path = ROOT) -> PowerSource | None:
    """Return a processor's counters of energy; None where this machine has none.

    Raises:
        DeviceError: it has some, and this user may not read them (root alone may, since CVE-2020-8694).
    """
    named = [(folder, _text(folder / "name")) for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))]
    # Other domains (core, uncore) lie within their package; intel-rapl-mmio holds the same counters once more.
    domains = [(folder, name) for folder, name in named if re.match(r"package|dram|psys", name)]
    if not domains:
        return None
    folders, names = zip(*domains, strict=True)
    wraps_uj = [_number(folder / "max_energy_range_uj") for folder in folders]
    reads = [_read_counter(folder / "energy_uj") for folder in folders]
    platform = [place for place, name in enumerate(names) if name.startswith("psys")]
    source = PowerSource(
        name="RAPL counters of the processor",
        kind="energy",
        parts=names,
        total=tuple(platform[:1] or range(len(names))),
        reason=None,
        interval_s=1e-3,  # Intel's manual, volume 3B, "RAPL interfaces": about a millisecond
        read=lambda: tuple(read() for read in reads),
        wrap_j=tuple(None if wrap is None else wrap / 1e6 for wrap in wraps_uj),
        scope="processor",
    )
    source.read()
    return source


def find_battery(root: Path = ROOT) -> PowerSource | None:
    """Return the first battery that is being discharged and tells what flows out: coarse, and of the whole machine.

    Other supplies (a charger, a USB-C port) tell what they may give, and a battery that is charged or full what comes
    in: neither is what the machine takes (https://docs.kernel.org/power/power_supply_class.html).

    Returns:
        The battery; None where this machine has none.

    Raises:
        DeviceError: there are batteries, and none is being discharged or tells its power.
    """
    refused = []
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(folder / "type") != "Battery" or _text(folder / "scope") == "Device":  # a mouse has one too
            continue
        read = partial(_battery_power, folder)
        try:
            read()
        except DeviceError as error:
            refused.append(str(error))
            continue
        # How often it changes is the driver's affair, and may be seconds.
        return PowerSource(f"power supply {folder.name}", "power", (folder.name,), (0,), None, None, read, (None,))
    if refused:
        raise DeviceError("; ".join(refused))
    return None


def total_of(source: PowerSource, values: Sequence[float]) -> float | None:
    """Return the device's total among a source's values; None where the rule of the board is not known."""
    return math.fsum(values[place] for place in source.total) if source.total else None


def _total_rails(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of the rails that make a board's total; none where the board is not known."""
    places = {label: place for place, label in enumerate(labels)}
    for label in _INPUTS:
        if label in places:
            return (places[label],)
    return tuple(places[label] for label in _AGX_ORIN) if set(_AGX_ORIN) <= set(places) else ()


def _read_rail(rail: Rail) -> Callable[[], float]:
    """Return what gives a rail's power in W, by the files of its kind of sensor."""
    folder, channel = rail.folder, rail.channel
    refused = f"the rail {rail.label} cannot be read in {folder}; {_UNREADABLE}"
    milli_v, milli_a = (_Attribute(folder / f"{what}{channel}_input") for what in ("in", "curr"))
    name, unit = {"ina238": ("power", 1e-6), "ina3221x": ("in_power", 1e-3)}.get(rail.sensor, (None, 1.0))
    whole = None if name is None else _Attribute(folder / f"{name}{channel}_input")

    def read() -> float:
        if whole is not None and (power := whole.number()) is not None:
            return power * unit
        volts, amperes = milli_v.number(), milli_a.number()
        if volts is None or amperes is None:
            raise DeviceError(refused)
        return volts * amperes / 1e6

    return read


def _battery_power(folder: Path) -> tuple[float]:
    """Return what flows out of a battery in W; some drivers count that as negative."""
    if (status := _text(folder / "status")) != "Discharging":
        raise DeviceError(f"the battery {folder.name} is not being discharged (status: {status or 'none'})")
    micro_w = _number(folder / "power_now")
    if micro_w is not None:
        return (abs(micro_w) / 1e6,)
    micro_v, micro_a = (_number(folder / name) for name in ("voltage_now", "current_now"))
    if micro_v is None or micro_a is None:
        raise DeviceError(f"{folder} tells no power")
    return (abs(micro_v * micro_a) / 1e12,)


def _read_counter(file: Path) -> Callable[[], float]:
    """Return what gives a counter's state in J."""
    micro_j = _Attribute(file)

    def read() -> float:
        if (value := micro_j.number()) is None:
            raise DeviceError(f"{file} cannot be read; {_UNREADABLE}")
        return value / 1e6

    return read


class _Attribute:
    """A file of sysfs that is kept open: opening it for every reading takes more time than reading it.

    Args:
        file: need not be there.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._handle: int | None = os.open(file, os.O_RDONLY)
        except OSError:
            self._handle = None

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def number(self) -> float | None:
        """Return the number that it holds now; None where it holds none or cannot be read."""
        if self._handle is None:
            return None
        try:
            value = float(os.pread(self._handle, 64, 0))
        except (OSError, ValueError):
            return None
        return value if math.isfinite(value) else None


def _number(file: Path) -> float | None:
    return _Attribute(file).number()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
