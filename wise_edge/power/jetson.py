"""What a Jetson's file system says about the board: model, release, power rails, power mode and clocks.

Reads sysfs and the files of NVIDIA's release; needs neither root nor a package.
Reference: https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wise_edge.bundle.devices import Capability
from wise_edge.power.sysfs import ROOT, read_text

_JETPACKS = {"36.3": "6.0", "36.4": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5": "6.2.2"}
_JETPACKS |= {"38.2": "7.0", "38.2.1": "7.0", "38.4": "7.1", "39.2": "7.2"}
"""JetPack by release of Jetson Linux (L4T) (https://developer.nvidia.com/embedded/jetpack-archive)."""
_MAJORS = {"35": "5", "36": "6", "38": "7", "39": "7"}
_CHIPS: dict[str, Capability] = {"nvidia,tegra234": (8, 7), "nvidia,tegra264": (11, 0)}
"""Compute capability of the GPU by the chip that the device tree names: Orin, Thor."""
_NOT_CONNECTED = "NC"
"""Label of a channel to which nothing is connected, for example of AGX Orin's second INA3221; reading it fails."""


@dataclass(frozen=True)
class Rail:
    """A power rail that the board measures.

    Attributes:
        label: its name, for example "VDD_IN".
        sensor: name of the chip that measures it, or of its driver: "ina3221", "ina238", "ina3221x".
        folder: the folder of its files.
        channel: its number in the names of the files.
    """

    label: str
    sensor: str
    folder: Path
    channel: int


@dataclass(frozen=True)
class Clock:
    """A clock whose rate may change with load.

    Attributes:
        name: for example "cpu0" or the GPU's name in devfreq.
        now_hz: its current rate.
        least_hz: its lowest allowed rate.
        most_hz: its highest allowed rate.
    """

    name: str
    now_hz: int
    least_hz: int
    most_hz: int

    @property
    def pinned(self) -> bool:
        """Whether its rate cannot change, as after `jetson_clocks`."""
        return self.least_hz == self.most_hz


@dataclass(frozen=True)
class Jetson:
    """What is known of a Jetson.

    Attributes:
        model: the board's name.
        l4t: release of Jetson Linux, for example "36.4.3".
        jetpack: the JetPack of that release, as exactly as is known; None for an unknown release.
        capability: compute capability of its GPU; None for an unknown chip.
        power_mode: name of the mode that nvpmodel set; None if nvpmodel reports none.
        power_modes: names of all modes.
        rails: the power rails that it measures.
        clocks: clocks of its processors and GPU.
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
    """Return what is known of this machine; None if it is not a Jetson.

    Args:
        root: where the file system begins.
    """
    release = read_text(root / "etc/nv_tegra_release")
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    model = read_text(root / "proc/device-tree/model")
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
    """Return the name of the power mode that nvpmodel set; None if it reports none."""
    match = re.search(r"pmode:(\d{1,9})\b", read_text(root / "var/lib/nvpmodel/status"))
    return _power_modes(root).get(int(match[1])) if match else None


def read_rails(root: Path = ROOT) -> Iterator[Rail]:
    """Yield the rails of the power sensors INA3221 and INA238, in the order of their files.

    An INA238 is AGX Thor's sensor of its input, VIN, which the driver does not label
    (https://docs.kernel.org/hwmon/ina238.html). Kernels before JetPack 5 list the INA3221 among the industrial I/O
    devices, with a driver called ina3221x.
    """
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        sensor = read_text(folder / "name")
        if sensor not in ("ina3221", "ina238"):
            continue
        labels = {int(file.name[2:-6]): read_text(file) for file in folder.glob("in[0-9]_label")}
        if sensor == "ina238" and not labels:
            labels = {1: "VIN"}
        for channel, label in sorted(labels.items()):
            # An INA3221 lists the sum of its channels' shunt voltages as another channel, which is not a rail.
            if label not in ("", _NOT_CONNECTED) and "sum" not in label.lower():
                yield Rail(label, sensor, folder, channel)
    for file in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_[0-9]")):
        if (label := read_text(file)) not in ("", _NOT_CONNECTED):
            yield Rail(label, "ina3221x", file.parent, int(re.sub(r"\D", "", file.name)))


def read_clocks(root: Path = ROOT) -> Iterator[Clock]:
    """Yield the clocks of the processors, on any machine, and of a Jetson's GPU."""
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        if clock := _clock(folder.parent.name, folder, "scaling_", 1000):
            yield clock
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"gpu|ga10b|gb10b", folder.name) and (clock := _clock(folder.name, folder, "", 1)):
            yield clock


def _capability(root: Path) -> Capability | None:
    compatible = read_text(root / "proc/device-tree/compatible").split("\0")
    return next((_CHIPS[chip] for chip in compatible if chip in _CHIPS), None)


def _power_modes(root: Path) -> dict[int, str]:
    text = read_text(root / "etc/nvpmodel.conf")
    return {int(number): name for number, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d{1,9})\s+NAME=(\S+)\s*>", text)}


def _clock(name: str, folder: Path, prefix: str, unit_hz: int) -> Clock | None:
    current = "scaling_cur_freq" if prefix else "cur_freq"
    texts = [read_text(folder / file) for file in (current, f"{prefix}min_freq", f"{prefix}max_freq")]
    if not all(re.fullmatch(r"[0-9]{1,18}", text) for text in texts):
        return None
    return Clock(name, *(int(text) * unit_hz for text in texts))
