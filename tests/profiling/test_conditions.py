"""Changes of a device between two moments are found, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jetson_trees import BOARDS, write_tree
from wise_edge.errors import DeviceError
from wise_edge.power.nvml import GpuState
from wise_edge.profiling import conditions
from wise_edge.profiling.conditions import Conditions, find_changes, read_conditions


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> GpuState:
        raise DeviceError("NVML says nothing")

    monkeypatch.setattr(conditions, "read_gpu_state", refuse)


def read(root: Path, name: str, text: str) -> Conditions:
    """Write a file of a tree and read its conditions."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return read_conditions(root)


def test_a_jetson_tells_mode_clocks_heat_and_over_current(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["orin-nano"], mode=1)
    read(root, "sys/class/thermal/thermal_zone0/type", "gpu-thermal\n")
    read(root, "sys/class/thermal/thermal_zone0/temp", "51500\n")
    read(root, "sys/class/thermal/thermal_zone1/type", "cv0-thermal\n")  # of a part that is off: no temperature
    found = read(root, "sys/class/hwmon/hwmon9/oc1_event_cnt", "4\n")

    assert found.power_mode == "25W"
    assert [clock.name for clock in found.clocks] == ["cpu0", "cpu1", "17000000.gpu"]
    assert found.temperatures_c == {"gpu-thermal": 51.5}
    assert found.throttled == {"oc1_event_cnt": 4}
    assert found.gpu is None


def test_a_processor_counts_its_throttling(tmp_path: Path) -> None:
    found = read(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "7\n")
    assert found.throttled == {"cpu0 package_throttle_count": 7}
    assert (found.power_mode, found.clocks, found.temperatures_c) == (None, (), {})


def test_changes_are_told_and_load_is_none(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["orin-nano"])
    before = read(root, "sys/class/hwmon/hwmon9/oc1_event_cnt", "4\n")
    cpu = root / "sys/devices/system/cpu/cpu0/cpufreq"
    (cpu / "scaling_cur_freq").write_text("1100000\n")
    assert find_changes(before, read_conditions(root)) == []

    (cpu / "scaling_min_freq").write_text("1728000\n")
    read(root, "var/lib/nvpmodel/status", "pmode:0002")
    after = read(root, "sys/class/hwmon/hwmon9/oc1_event_cnt", "6\n")
    assert find_changes(before, after) == [
        "the power mode changed from 15W to MAXN_SUPER",
        "the bounds of the clock cpu0 changed from 730-1728 MHz to 1728-1728 MHz",
        "the device was throttled: oc1_event_cnt counted 2 more events",
    ]


def test_a_gpu_that_was_held_back_is_told() -> None:
    cool = GpuState(2520_000_000, 50, {"heat": 1.0, "power": 2.0}, None)
    before = replace(read_conditions(Path("/nowhere")), gpu=cool)
    after = replace(before, gpu=replace(cool, temperature_c=84, violations_s={"heat": 1.25, "power": 2.0}))
    assert find_changes(before, after) == ["the GPU was throttled by heat for 0.25 s"]
    assert find_changes(before, replace(after, gpu=None)) == []


def test_a_suspended_machine_and_a_clock_that_was_set_are_told() -> None:
    before = read_conditions(Path("/nowhere"))
    assert find_changes(before, read_conditions(Path("/nowhere"))) == []

    # While a machine sleeps its monotonic clock stands still and the others go on.
    slept = replace(before, slept_s=before.slept_s + 30.0, unix_minus_monotonic_s=before.unix_minus_monotonic_s + 30.0)
    assert find_changes(before, slept) == ["the machine was suspended for 30.0 s"]
    stepped = replace(before, unix_minus_monotonic_s=before.unix_minus_monotonic_s - 3600.0)
    assert find_changes(before, stepped) == ["the system clock was set by -3600.0 s"]
