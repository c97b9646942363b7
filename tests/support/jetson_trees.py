"""File systems as Jetsons have them, as far as they are read, from NVIDIA's documents and reports of users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Board:
    """What tells one Jetson from another.

    Attributes:
        model: name in the device tree.
        compatible: chips in the device tree.
        release: `/etc/nv_tegra_release`.
        sensors: for each power sensor its kind and its labels by channel.
        modes: power modes by number.
        gpu: name of the GPU in devfreq; that of Orin by default.
    """

    model: str
    compatible: tuple[str, ...]
    release: str
    sensors: tuple[tuple[str, Mapping[int, str]], ...]
    modes: Mapping[int, str]
    gpu: str = "17000000.gpu"


_R36 = (
    "# R36 (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
_R38 = (
    "# R38 (release), REVISION: {}, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Mon Sep  1 20:00:00 UTC 2025"
)
_MODULE_RAILS = {1: "VDD_IN", 2: "VDD_CPU_GPU_CV", 3: "VDD_SOC", 7: "sum of shunt voltages"}

BOARDS = {
    "orin-nano": Board(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        _R36.format("4.3"),
        (("ina3221", _MODULE_RAILS),),
        {0: "15W", 1: "25W", 2: "MAXN_SUPER"},
    ),
    "orin-nx": Board(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        _R36.format("4.0"),
        (("ina3221", _MODULE_RAILS),),
        {0: "MAXN", 1: "10W", 2: "15W", 3: "25W"},
    ),
    "agx-orin": Board(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        _R36.format("3.0"),
        (
            ("ina3221", {1: "VDD_GPU_SOC", 2: "VDD_CPU_CV", 3: "VIN_SYS_5V0", 7: "sum of shunt voltages"}),
            ("ina3221", {2: "VDDQ_VDD2_1V8AO", 7: "sum of shunt voltages"}),
        ),
        {0: "MAXN", 1: "MODE_15W", 2: "MODE_30W", 3: "MODE_50W"},
    ),
    "thor": Board(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        _R38.format("2.1"),
        (("ina238", {1: "VIN"}), ("ina3221", {1: "VDD_GPU", 2: "VDD_CPU_SOC_MSS", 3: "VIN_SYS_5V0"})),
        {0: "MAXN", 1: "120W", 2: "90W", 3: "70W"},
        "gpu-gpc-0",
    ),
}


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
    _write(root / "sys/class/hwmon/hwmon0/name", "gpu_thermal\n")
    for number, (kind, labels) in enumerate(board.sensors, 1):
        folder = root / f"sys/class/hwmon/hwmon{number}"
        _write(folder / "name", kind + "\n")
        for channel, label in labels.items():
            _write(folder / f"in{channel}_label", label + "\n")
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


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
