"""A Jetson's rails are read in W, and the total follows the rule of the board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jetson_trees import BOARDS, write_tree
from wise_edge.errors import DeviceError
from wise_edge.power.rails import find_jetson_rails
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import total_of
from wise_edge.power.trace import PowerTrace


def write_rails(root: Path, watts: dict[str, float]) -> None:
    """Write the power that the rails of a tree measure: an INA238 in µW, others as a current at 5 V."""
    for label in (root / "sys/class/hwmon").glob("hwmon*/in*_label"):
        name, channel = label.read_text().strip(), label.name[2:-6]
        if name not in watts:
            continue
        if (label.parent / "name").read_text().strip() == "ina238":
            (label.parent / f"power{channel}_input").write_text(f"{watts[name] * 1e6:.0f}\n")
        else:
            (label.parent / f"in{channel}_input").write_text("5000\n")
            (label.parent / f"curr{channel}_input").write_text(f"{watts[name] / 5 * 1e3:.0f}\n")


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
        ("thor", {"VIN": 60.0, "VDD_GPU": 30.0, "VDD_CPU_SOC_MSS": 12.0, "VIN_SYS_5V0": 8.0}, 60.0),
    ],
)
def test_the_total_of_each_board_follows_its_rule(
    board: str, watts: dict[str, float], total_w: float, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, BOARDS[board])
    write_rails(root, watts)
    source = find_jetson_rails(root)

    assert source is not None
    assert source.reason is None
    assert dict(zip(source.parts, source.read(), strict=True)) == pytest.approx(watts)
    assert total_of(source, source.read()) == pytest.approx(total_w)


def test_rails_of_an_unknown_board_have_no_total(tmp_path: Path) -> None:
    board = replace(BOARDS["orin-nx"], sensors=(("ina3221", {1: "MY_RAIL", 2: "OTHER"}),))
    root = write_tree(tmp_path, board)
    write_rails(root, {"MY_RAIL": 3.0, "OTHER": 4.0})
    source = find_jetson_rails(root)

    assert source is not None
    assert total_of(source, source.read()) is None
    assert "the rails MY_RAIL, OTHER belong to no known board" in (source.reason or "")
    assert PowerTrace(source, np.arange(9.0), np.ones((9, 2))).energy(1.0, 7.0).reason == source.reason
    (root / "sys/class/hwmon/hwmon1/curr1_input").write_text("")
    with pytest.raises(DeviceError, match=r"the rail MY_RAIL cannot be read.*udev rule"):
        source.read()


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
