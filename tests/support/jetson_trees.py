"""File systems as Jetsons have them, as far as they are read, from NVIDIA's documents and reports of users.

Numbers of hwmon folders, labels and what else is listed there are those of these reports:

- AGX Orin: https://github.com/rbonghi/jetson_stats/issues/428 (folders), https://github.com/rbonghi/jetson_stats/issues/381
  (labels NC), https://github.com/alumet-dev/alumet/issues/212 (NC cannot be read, not even by root). Linux itself
  disables those channels without a label (arch/arm64/boot/dts/nvidia/tegra234-p3701.dtsi) and answers ENODATA
  (drivers/hwmon/ina3221.c).
- Xavier NX: https://github.com/OE4T/meta-tegra-community/pull/92; AGX Xavier: https://github.com/martinkersner/gtop/pull/7
  and https://github.com/energymon/energymon/blob/main/jetson/JetsonPowerRails.md.
- AGX Thor: folders of L4T R38.4 listed by a user of its fan; its INA238 has the files of
  https://docs.kernel.org/6.16/hwmon/ina238.html, none of them a label. Its addresses are not reported; these are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wise_edge.power.jetson import read_rails


@dataclass(frozen=True)
class Sensor:
    """A power sensor: its kind, its address on the I2C bus, the number of its hwmon folder, and labels by channel."""

    kind: str
    address: str
    hwmon: int
    labels: Mapping[int, str]


@dataclass(frozen=True)
class Board:
    """What tells one Jetson from another.

    Attributes:
        model: name in the device tree.
        compatible: chips in the device tree.
        release: `/etc/nv_tegra_release`.
        sensors: the power sensors.
        modes: power modes by number.
        gpu: name of the GPU in devfreq; that of Orin by default.
    """

    model: str
    compatible: tuple[str, ...]
    release: str
    sensors: tuple[Sensor, ...]
    modes: Mapping[int, str]
    gpu: str = "17000000.gpu"


_R36 = (
    "# R36 (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
_R38 = (
    "# R38 (release), REVISION: {}, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Mon Sep  1 20:00:00 UTC 2025"
)
_R35 = (
    "# R35 (release), REVISION: {}, GCID: 32827747, BOARD: t186ref, EABI: aarch64, DATE: Sun Mar 19 15:19:21 UTC 2023"
)
_SUM = {7: "sum of shunt voltages"}
_MODULE_RAILS = {1: "VDD_IN", 2: "VDD_CPU_GPU_CV", 3: "VDD_SOC"} | _SUM
_AGX_ORIN_RAILS = {1: "VDD_GPU_SOC", 2: "VDD_CPU_CV", 3: "VIN_SYS_5V0"} | _SUM
_MEMORY_RAIL = {2: "VDDQ_VDD2_1V8AO"} | _SUM

BOARDS = {
    "orin-nano": Board(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        _R36.format("4.3"),
        (Sensor("ina3221", "1-0040", 1, _MODULE_RAILS),),
        {0: "15W", 1: "25W", 2: "MAXN_SUPER"},
    ),
    "orin-nx": Board(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        _R36.format("4.0"),
        (Sensor("ina3221", "1-0040", 1, _MODULE_RAILS),),
        {0: "MAXN", 1: "10W", 2: "15W", 3: "25W"},
    ),
    "agx-orin": Board(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        _R36.format("3.0"),
        (
            Sensor("ina3221", "1-0040", 3, _AGX_ORIN_RAILS),
            Sensor("ina3221", "1-0041", 4, {1: "NC", 3: "NC"} | _MEMORY_RAIL),
        ),
        {0: "MAXN", 1: "MODE_15W", 2: "MODE_30W", 3: "MODE_50W"},
    ),
    "agx-orin-mainline": Board(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        _R36.format("3.0"),
        (Sensor("ina3221", "1-0040", 10, _AGX_ORIN_RAILS), Sensor("ina3221", "1-0041", 2, _MEMORY_RAIL)),
        {0: "MAXN"},
    ),
    "thor": Board(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        _R38.format("2.1"),
        (
            Sensor("ina238", "2-0044", 4, {}),
            Sensor("ina3221", "2-0040", 5, {1: "VDD_GPU", 2: "VDD_CPU_SOC_MSS", 3: "VIN_SYS_5V0"} | _SUM),
        ),
        {0: "MAXN", 1: "120W", 2: "90W", 3: "70W"},
        "gpu-gpc-0",
    ),
}

OLD_BOARDS = {
    "xavier-nx": Board(
        "NVIDIA Jetson Xavier NX Developer Kit",
        ("nvidia,p3449-0000+p3668-0000", "nvidia,tegra194"),
        _R35.format("3.1"),
        (Sensor("ina3221", "7-0040", 4, _MODULE_RAILS),),
        {0: "MODE_15W_2CORE"},
        "17000000.gv11b",
    ),
    "agx-xavier": Board(
        "Jetson-AGX",
        ("nvidia,p2972-0000", "nvidia,tegra194"),
        _R35.format("3.1"),
        (
            Sensor("ina3221", "1-0040", 3, {1: "GPU", 2: "CPU", 3: "SOC"} | _SUM),
            Sensor("ina3221", "1-0041", 4, {1: "CV", 2: "VDDRQ", 3: "SYS5V"} | _SUM),
        ),
        {0: "MAXN"},
        "17000000.gv11b",
    ),
}

_OTHERS = {
    "nvme": {"temp1_input": "38850"},
    "pwmfan": {"pwm1": "58"},
    "pwm_tach": {"rpm": "1786"},
    "tmp451": {"temp1_input": "46000"},
    "ucsi_source_psy_1_00081": {"in0_input": "20000", "curr1_input": "3000"},
    "gpu_thermal": {},
}
"""What else is listed beside the power sensors; a USB-C port reports what was negotiated, not what flows."""


def write_tree(root: Path, board: Board, *, mode: int = 0, pinned: bool = False) -> Path:
    """Write a board's files below a folder and return it."""
    _write(root / "proc/device-tree/model", board.model + "\0")
    _write(root / "proc/device-tree/compatible", "\0".join(board.compatible) + "\0")
    _write(root / "etc/nv_tegra_release", board.release + "\n# KERNEL_VARIANT: oot\n")
    _write(root / "proc/meminfo", "MemTotal:        7802048 kB\nMemFree:  1000000 kB\nMemAvailable:    6000000 kB\n")
    modes = "".join(
        f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n" for number, name in board.modes.items()
    )
    _write(root / "etc/nvpmodel.conf", f"# comment\n{modes}< PM_CONFIG DEFAULT={mode} >\n")
    _write(root / "var/lib/nvpmodel/status", f"pmode:{mode:04d}")
    for number, (name, files) in enumerate(_OTHERS.items(), 20):
        for file, text in ({"name": name} | files).items():
            _write(root / f"sys/class/hwmon/hwmon{number}" / file, text + "\n")
    for sensor in board.sensors:
        folder = root / f"sys/devices/platform/c240000.i2c/i2c-{sensor.address[0]}/{sensor.address}/hwmon"
        _write(folder / f"hwmon{sensor.hwmon}/name", sensor.kind + "\n")
        for channel, label in sensor.labels.items():
            _write(folder / f"hwmon{sensor.hwmon}/in{channel}_label", label + "\n")
        (root / f"sys/class/hwmon/hwmon{sensor.hwmon}").symlink_to(folder / f"hwmon{sensor.hwmon}")
    for core in range(2):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        low = 1728000 if pinned else 729600
        for name, rate in (("scaling_cur_freq", low), ("scaling_min_freq", low), ("scaling_max_freq", 1728000)):
            _write(folder / name, f"{rate}\n")
    low = 1020000000 if pinned else 306000000
    for name, rate in (("cur_freq", low), ("min_freq", low), ("max_freq", 1020000000)):
        _write(root / "sys/class/devfreq" / board.gpu / name, f"{rate}\n")
    _write(root / "sys/class/devfreq/15340000.vic/cur_freq", "1\n")
    return root


def write_rails(root: Path, watts: Mapping[str, float]) -> None:
    """Write what the rails of a tree measure, in W: an INA238 in µW, others as a current at 5 V, no channel of NC."""
    for rail in read_rails(root):
        if rail.sensor == "ina238":
            _write(rail_file(root, rail.label, "power"), f"{watts[rail.label] * 1e6:.0f}\n")
        _write(rail_file(root, rail.label, "in"), "5000\n")
        _write(rail_file(root, rail.label, "curr"), f"{watts[rail.label] / 5 * 1e3:.0f}\n")


def rail_file(root: Path, label: str, quantity: str) -> Path:
    """Return the file of a rail's "in" (mV), "curr" (mA) or "power" (µW)."""
    rail = next(rail for rail in read_rails(root) if rail.label == label)
    return rail.folder / f"{quantity}{rail.channel}_input"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
