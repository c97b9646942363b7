"""What a Jetson says of itself in its file system: board, release, power rails, power mode and clocks.

Reads sysfs and the files of NVIDIA's release; needs no root and no package.
Reference: https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wise_edge.bundle.devices import Capability

ROOT = Path("/")

_JETPACKS = {"36.3": "6.0", "36.4": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5": "6.2.2"}
_JETPACKS |= {"38.2": "7.0", "38.2.1": "7.0", "38.4": "7.1", "39.2": "7.2"}
"""JetPack by release of L4T (https://developer.nvidia.com/embedded/jetpack-archive)."""
_MAJORS = {"35": "5", "36": "6", "38": "7", "39": "7"}
_CHIPS: dict[str, Capability] = {"nvidia,tegra234": (8, 7), "nvidia,tegra264": (11, 0)}
"""Compute capability of the GPU by the chip that the device tree names: Orin, Thor."""


@dataclass(frozen=True)
class Rail:
    """A power rail that the board measures.

    Attributes:
        label: its name, for example "VDD_IN".
        sensor: name of the chip that measures it, or of its driver: "ina3221", "ina238", "ina3221x".
        folder: where its files lie.
        channel: number of it in their names.
    """

    label: str
    sensor: str
    folder: Path
    channel: int


@dataclass(frozen=True)
class Clock:
    """A clock that may change with load.

    Attributes:
        name: for example "cpu0" or the GPU's name in devfreq.
        now_hz: its rate.
        least_hz: the lowest that it may take.
        most_hz: the highest that it may take.
    """

    name: str
    now_hz: int
    least_hz: int
    most_hz: int

    @property
    def pinned(self) -> bool:
        """Whether it cannot change: what `jetson_clocks` does."""
        return self.least_hz == self.most_hz


@dataclass(frozen=True)
class Jetson:
    """A Jetson.

    Attributes:
        model: the board's name.
        l4t: release of Jetson Linux, for example "36.4.3".
        jetpack: JetPack that it belongs to, as exactly as is known; None where the release is unknown.
        capability: compute capability of its GPU; None for a chip that is unknown.
        power_mode: name of the mode that nvpmodel set; None where it does not say.
        power_modes: names of all modes.
        rails: what it measures.
        clocks: of processors and GPU.
    """

    model: str
    l4t: str
    jetpack: str | None
    capability: Capability | None
    power_mode: str | None
    power_modes: tuple[str, ...]
    rails: tuple[Rail, ...]
    clocks: tuple[Clock, ...]


def read_jetson(root: Path = ROOT) -> Jetson | None:
    """Return what this machine says of itself; None where it is no Jetson.

    Args:
        root: where the file system begins.
    """
    release = _read(root / "etc/nv_tegra_release")
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    model = _read(root / "proc/device-tree/model")
    if match is None or not model:
        return None
    l4t = f"{match[1]}.{match[2]}".removesuffix(".0")
    return Jetson(
        model=model,
        l4t=l4t,
        jetpack=_JETPACKS.get(l4t) or _MAJORS.get(match[1]),
        capability=_capability(root),
        power_mode=read_power_mode(root),
        power_modes=tuple(_power_modes(root).values()),
        rails=tuple(read_rails(root)),
        clocks=tuple(read_clocks(root)),
    )


def read_power_mode(root: Path = ROOT) -> str | None:
    """Return the name of the power mode that nvpmodel set; None where it does not say."""
    match = re.search(r"pmode:(\d+)", _read(root / "var/lib/nvpmodel/status"))
    return _power_modes(root).get(int(match[1])) if match else None


def read_rails(root: Path = ROOT) -> Iterator[Rail]:
    """Yield the rails of the power sensors that hold a label, INA3221 and INA238, in the order of their files.

    Kernels before JetPack 5 have the INA3221 among the devices of industrial I/O, by a driver called ina3221x.
    """
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        sensor = _read(folder / "name")
        if sensor not in ("ina3221", "ina238"):
            continue
        for label in sorted(folder.glob("in*_label")):
            channel = int(re.sub(r"\D", "", label.name))
            # An INA3221 gives the sum of its channels' shunt voltages as one more, which is no rail.
            if "sum" not in (name := _read(label)).lower():
                yield Rail(name, sensor, folder, channel)
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        yield Rail(_read(label), "ina3221x", label.parent, int(re.sub(r"\D", "", label.name)))


def read_clocks(root: Path = ROOT) -> Iterator[Clock]:
    """Yield the clocks of processors, of any machine, and of a Jetson's GPU."""
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        if clock := _clock(folder.parent.name, folder, "scaling_", 1000):
            yield clock
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"gpu|ga10b|gb10b", folder.name) and (clock := _clock(folder.name, folder, "", 1)):
            yield clock


def _capability(root: Path) -> Capability | None:
    compatible = _read(root / "proc/device-tree/compatible").split("\0")
    return next((_CHIPS[chip] for chip in compatible if chip in _CHIPS), None)


def _power_modes(root: Path) -> dict[int, str]:
    text = _read(root / "etc/nvpmodel.conf")
    return {int(number): name for number, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text)}


def _clock(name: str, folder: Path, prefix: str, unit_hz: int) -> Clock | None:
    current = "scaling_cur_freq" if prefix else "cur_freq"
    texts = [_read(folder / file) for file in (current, f"{prefix}min_freq", f"{prefix}max_freq")]
    if not all(text.isdigit() for text in texts):
        return None
    return Clock(name, *(int(text) * unit_hz for text in texts))


def _read(file: Path) -> str:
    """Return a file's text without what surrounds it; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
