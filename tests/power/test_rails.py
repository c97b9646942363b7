"""A Jetson's rails are read in W, and the total follows the rule of the board."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jetson_trees import BOARDS, OLD_BOARDS, Sensor, rail_file, write_rails, write_tree
from wise_edge.errors import DeviceError
from wise_edge.power import sysfs
from wise_edge.power.jetson import read_clocks, read_power_mode, read_rails
from wise_edge.power.rails import find_jetson_rails
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource, total_of
from wise_edge.power.trace import PowerTrace


@pytest.mark.parametrize(
    ("board", "watts", "total_w"),
    [
        ("orin-nano", {"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0}, 8.0),
        ("orin-nx", {"VDD_IN": 14.0, "VDD_CPU_GPU_CV": 6.0, "VDD_SOC": 4.0}, 14.0),
        (
            "agx-orin",
            {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 6.0, "VDDQ_VDD2_1V8AO": 2.0},
            20.0,
        ),
        (
            "agx-orin-mainline",
            {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 6.0, "VDDQ_VDD2_1V8AO": 2.0},
            20.0,
        ),
        ("xavier-nx", {"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0}, 9.0),
        ("agx-xavier", {"GPU": 5.0, "CPU": 4.0, "SOC": 3.0, "CV": 0.0, "VDDRQ": 1.0, "SYS5V": 3.5}, 16.5),
        ("thor", {"VIN": 60.0, "VDD_GPU": 0.0, "VDD_CPU_SOC_MSS": 12.0, "VIN_SYS_5V0": 8.0}, 60.0),
    ],
)
def test_the_total_of_each_board_follows_its_rule(
    board: str, watts: dict[str, float], total_w: float, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, (BOARDS | OLD_BOARDS)[board])
    write_rails(root, watts)
    source = find_jetson_rails(root)

    assert source is not None
    assert source.reason is None
    assert dict(zip(source.parts, source.read(), strict=True)) == pytest.approx(watts)
    assert total_of(source, source.read()) == pytest.approx(total_w)


def test_rails_of_an_unknown_board_have_no_total(tmp_path: Path) -> None:
    board = replace(BOARDS["orin-nx"], sensors=(Sensor("ina3221", "1-0040", 1, {1: "MY_RAIL", 2: "OTHER"}),))
    root = write_tree(tmp_path, board)
    write_rails(root, {"MY_RAIL": 3.0, "OTHER": 4.0})
    source = find_jetson_rails(root)

    assert source is not None
    assert total_of(source, source.read()) is None
    assert "the rails MY_RAIL, OTHER belong to no known board" in (source.reason or "")
    assert PowerTrace(source, np.arange(9.0), np.ones((9, 2))).energy(1.0, 7.0).reason == source.reason
    rail_file(root, "MY_RAIL", "curr").write_text("")
    assert source.read() == pytest.approx((math.nan, 4.0), nan_ok=True)


Failures = dict[Path, int]


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Failures:
    """Files that the kernel refuses to read, each with its errno."""
    refused: Failures = {}
    read = os.pread

    def pread(handle: int, count: int, offset: int) -> bytes:
        file = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if file in refused:
            raise OSError(refused[file], os.strerror(refused[file]))
        return read(handle, count, offset)

    monkeypatch.setattr(sysfs.os, "pread", pread)
    return refused


AGX_ORIN = {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 6.0, "VDDQ_VDD2_1V8AO": 2.0}


def agx_orin(folder: Path) -> tuple[Path, PowerSource]:
    root = write_tree(folder, BOARDS["agx-orin"])
    write_rails(root, AGX_ORIN)
    source = find_jetson_rails(root)
    assert source is not None
    return root, source


@pytest.mark.parametrize("garbage", ["²", "9" * 5000, "", "\0\0", "1e400", "xyz"])
def test_files_of_the_kernel_that_hold_no_number_are_left_out(garbage: str, tmp_path: Path) -> None:
    hwmon, cpu = tmp_path / "sys/class/hwmon/hwmon9", tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    for folder, names in {
        cpu: ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq"),
        hwmon: ("in_label", "inx_label", "in99999_label"),
        tmp_path / "etc": (),
        tmp_path / "var/lib/nvpmodel": (),
    }.items():
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(garbage)
    (hwmon / "name").write_text("ina3221")
    (tmp_path / "var/lib/nvpmodel/status").write_text(f"pmode:{garbage}")
    (tmp_path / "etc/nvpmodel.conf").write_text(f"< POWER_MODEL ID={garbage} NAME=X >")
    assert not list(read_rails(tmp_path))
    assert not list(read_clocks(tmp_path))
    assert read_power_mode(tmp_path) is None


def test_channels_that_are_not_connected_are_no_rails(tmp_path: Path) -> None:
    root, source = agx_orin(tmp_path)
    assert set(source.parts) == set(AGX_ORIN)
    assert {file.read_text() for file in root.glob("sys/class/hwmon/hwmon4/in*_label")} >= {"NC\n"}


@pytest.mark.parametrize("error", [errno.ENODATA, errno.EIO, errno.EACCES])
def test_a_rail_that_does_not_count_ends_alone(error: int, tmp_path: Path, failures: Failures) -> None:
    root, source = agx_orin(tmp_path)
    memory = rail_file(root, "VDDQ_VDD2_1V8AO", "curr").resolve()
    assert total_of(source, source.read()) == pytest.approx(20.0)
    failures[memory] = error
    for _ in range(2):
        values = dict(zip(source.parts, source.read(), strict=True))
        assert math.isnan(values.pop("VDDQ_VDD2_1V8AO"))
        assert total_of(source, source.read()) == pytest.approx(20.0)

    late = find_jetson_rails(root)
    assert late is not None
    assert "VDDQ_VDD2_1V8AO" not in late.parts  # it could not be read at the start
    assert total_of(late, late.read()) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errno.ENODATA, "No data available"),
        (errno.EIO, "Input/output error"),
        (errno.EAGAIN, "Resource temporarily unavailable"),
    ],
)
def test_a_rail_that_counts_may_fail_for_a_moment(error: int, words: str, tmp_path: Path, failures: Failures) -> None:
    root, source = agx_orin(tmp_path)
    current = rail_file(root, "VDD_CPU_CV", "curr").resolve()
    now_s = [0.0]

    def wait(seconds: float) -> bool:
        now_s[0] += seconds
        failures.clear()
        if 1.0 < now_s[0] < 1.02 or now_s[0] > 4.0:
            failures[current] = error
        return now_s[0] > 5.0

    sampler = PowerSampler(source, lambda: now_s[0], wait)
    sampler.sample()
    trace = sampler.trace()

    assert trace.energy(0.5, 2.5).energy_j == pytest.approx(40.0)
    assert trace.dropped > 100
    reason = trace.energy(3.5, 4.5).reason or ""
    assert reason.startswith("the rail VDD_CPU_CV: ")
    assert reason.endswith(f"curr2_input cannot be read: {words}")  # and no advice to run as root


def test_only_a_missing_permission_asks_for_root(tmp_path: Path, failures: Failures) -> None:
    root, source = agx_orin(tmp_path)
    failures[rail_file(root, "VIN_SYS_5V0", "in").resolve()] = errno.EACCES
    with pytest.raises(DeviceError, match=r"the rail VIN_SYS_5V0: .*in3_input cannot be read: Perm.*; run as root, or"):
        source.read()


def test_a_driver_that_is_reloaded_is_read_again(tmp_path: Path, failures: Failures) -> None:
    root, source = agx_orin(tmp_path)
    current = rail_file(root, "VDD_CPU_CV", "curr").resolve()
    source.read()
    failures[current] = errno.ENODEV
    with pytest.raises(DeviceError, match="No such device"):
        source.read()
    failures.clear()
    current.unlink()
    current.write_text("1000\n")  # a new file, as a reloaded driver makes it
    assert total_of(source, source.read()) == pytest.approx(21.0)


@pytest.mark.parametrize("missing", ["power", "in", "curr"])
def test_thors_input_is_found_by_its_chip(missing: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["thor"])
    write_rails(root, {"VIN": 60.0, "VDD_GPU": 30.0, "VDD_CPU_SOC_MSS": 12.0, "VIN_SYS_5V0": 8.0})
    rail_file(root, "VIN", missing).unlink()
    source = find_jetson_rails(root)

    assert source is not None
    assert source.interval_s == 0.0505
    assert total_of(source, source.read()) == pytest.approx(60.0)


def test_an_ina238_of_ones_own_is_not_the_input_of_another_board(tmp_path: Path) -> None:
    own = Sensor("ina238", "7-0045", 7, {})
    root = write_tree(tmp_path, replace(BOARDS["agx-orin"], sensors=(*BOARDS["agx-orin"].sensors, own)))
    write_rails(root, AGX_ORIN | {"VIN": 90.0})
    source = find_jetson_rails(root)

    assert source is not None
    assert total_of(source, source.read()) == pytest.approx(20.0)


def test_two_rails_of_one_name_have_no_total(tmp_path: Path) -> None:
    board = BOARDS["thor"]
    root = write_tree(tmp_path, replace(board, sensors=(*board.sensors, Sensor("ina238", "7-0045", 7, {}))))
    source = find_jetson_rails(root)

    assert source is not None
    assert (source.total, "no total: the rails" in (source.reason or "")) == ((), True)


@pytest.mark.parametrize(("label", "total_w"), [("POM_5V_IN", 7.5), ("VDD_IN", 7.5), ("GPU", None)])
def test_rails_of_kernels_before_jetpack_5(label: str, total_w: float | None, tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    folder.mkdir(parents=True)
    for channel, (name, milli_w) in enumerate(((label, 7500), ("POM_5V_CPU", 2100))):
        (folder / f"rail_name_{channel}").write_text(f"{name}\n")
        (folder / f"in_power{channel}_input").write_text(f"{milli_w}\n")
    source = find_jetson_rails(tmp_path)

    assert source is not None
    assert (source.parts, source.read()) == ((label, "POM_5V_CPU"), pytest.approx((7.5, 2.1)))
    assert total_of(source, source.read()) == total_w


def test_rails_are_read_at_their_own_interval(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["orin-nano"])
    write_rails(root, {"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0})
    (root / "sys/class/hwmon/hwmon1/update_interval").write_text("40\n")
    source = find_jetson_rails(root)

    assert source is not None
    assert source.interval_s == 0.04
    assert PowerSampler(source).pause_s == 0.02
    assert PowerSampler(replace(source, interval_s=None)).pause_s == 0.008
