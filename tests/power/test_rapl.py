"""A processor's counters are read in J; memory counts with its package, and the platform's counter alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from wise_edge.errors import DeviceError
from wise_edge.power import sysfs
from wise_edge.power.rapl import find_rapl
from wise_edge.power.sources import total_of
from wise_edge.power.trace import PowerTrace


def _powercap(root: Path, domains: dict[str, tuple[str, int]]) -> None:
    for folder, (name, energy_uj) in domains.items():
        place = root / "sys/class/powercap" / folder
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
        (place / "energy_uj").write_text(f"{energy_uj}\n")
        (place / "max_energy_range_uj").write_text("262143328850\n")


def test_packages_and_memory_are_a_processors_total(tmp_path: Path) -> None:
    _powercap(
        tmp_path,
        {
            "intel-rapl:0": ("package-0", 5_000_000),
            "intel-rapl:0:0": ("core", 3_000_000),
            "intel-rapl:0:1": ("dram", 2_000_000),
        },
    )
    source = find_rapl(tmp_path)

    assert source is not None
    assert (source.parts, source.total) == (("package-0", "dram"), (0, 1))
    assert total_of(source, source.read()) == pytest.approx(7.0)
    assert source.wrap_j == pytest.approx((262143.32885,) * 2)
    assert find_rapl(tmp_path / "none") is None


def test_the_platforms_counter_includes_the_others(tmp_path: Path) -> None:
    _powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000), "intel-rapl:1": ("psys", 9_000_000)})
    source = find_rapl(tmp_path)

    assert source is not None
    assert total_of(source, source.read()) == pytest.approx(9.0)


def test_unreadable_counters_say_how_to_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000)})

    def refuse(file: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

    with monkeypatch.context() as patched:
        patched.setattr(sysfs.os, "open", refuse)
        with pytest.raises(DeviceError, match=r"energy_uj cannot be read: Permission denied.*udev rule"):
            find_rapl(tmp_path)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    with pytest.raises(DeviceError, match=r"energy_uj cannot be read: No such file or directory$"):
        find_rapl(tmp_path)


def test_a_counter_that_does_not_count_ends_alone(tmp_path: Path) -> None:
    _powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000), "intel-rapl:1": ("psys", 9_000_000)})
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    source = find_rapl(tmp_path)

    assert source is not None
    times_s = np.arange(50) / 10
    values = np.array([source.read()] * 50) + times_s[:, None]
    assert PowerTrace(source, times_s, values).energy(1.0, 3.0, 0.5).energy_j == pytest.approx(2.0)
