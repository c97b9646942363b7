"""A discharging battery measures the machine; other supplies do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.errors import DeviceError
from wise_edge.power.battery import find_battery


def write_supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for attribute, text in files.items():
        (folder / attribute).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"power_now": "8500000"}, 8.5),
        ({"voltage_now": "12000000", "current_now": "-700000"}, 8.4),
    ],
)
def test_a_battery_reports_what_flows_out(files: dict[str, str], watts: float, tmp_path: Path) -> None:
    write_supply(tmp_path, "AC", type="Mains", online="0")
    write_supply(tmp_path, "BAT0", type="Battery", status="Discharging", **files)
    source = find_battery(tmp_path)

    assert source is not None
    assert (source.name, source.read()) == ("power supply BAT0", pytest.approx((watts,)))
    write_supply(tmp_path, "BAT0", status="Charging")
    with pytest.raises(DeviceError, match="BAT0 is not discharging"):
        source.read()


def test_other_supplies_measure_nothing(tmp_path: Path) -> None:
    contract = {"voltage_now": "20000000", "current_now": "3000000"}
    write_supply(tmp_path, "ucsi-source-psy-USBC000:001", type="USB", online="1", **contract)
    write_supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", power_now="9")
    assert find_battery(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"status": "Charging"}, r"the battery BAT0 is not discharging \(status: Charging\)"),
        ({"status": "Full"}, r"status: Full"),
        ({}, r"status: none"),
    ],
)
def test_a_battery_that_is_not_discharging_is_named(files: dict[str, str], line: str, tmp_path: Path) -> None:
    write_supply(tmp_path, "BAT0", type="Battery", power_now="8500000", **files)
    with pytest.raises(DeviceError, match=line):
        find_battery(tmp_path)


def test_a_battery_without_power_is_skipped(tmp_path: Path) -> None:
    write_supply(tmp_path, "BAT0", type="Battery", status="Discharging", voltage_now="12000000")
    with pytest.raises(DeviceError, match="BAT0 reports no power"):
        find_battery(tmp_path)
    write_supply(tmp_path, "BAT1", type="Battery", status="Discharging", power_now="8500000")
    source = find_battery(tmp_path)
    assert source is not None
    assert source.read() == pytest.approx((8.5,))
