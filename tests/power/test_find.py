"""The device that works counts; an idle one never replaces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wise_edge.errors import DeviceError
from wise_edge.power import find
from wise_edge.power.battery import find_battery
from wise_edge.power.find import NOWHERE, find_sources
from wise_edge.power.rails import find_jetson_rails
from wise_edge.power.rapl import find_rapl
from wise_edge.power.sources import PowerSource


def test_a_machine_without_sensors_has_no_source(tmp_path: Path) -> None:
    assert [search(tmp_path) for search in (find_jetson_rails, find_rapl, find_battery)] == [None] * 3


GPU = PowerSource("gpu", "energy", ("GPU",), (0,), None, 0.1, lambda: (1.0,), (None,), "gpu")
RAPL = replace(GPU, name="rapl", parts=("package-0",), scope="processor")
BATTERY = replace(GPU, name="battery", kind="power", parts=("BAT0",), scope="machine")
RAILS = replace(BATTERY, name="rails", parts=("VDD_IN",))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the sources of the machine; a text is the reason why one cannot be read."""

    def ask(found: object) -> object:
        if isinstance(found, str):
            raise DeviceError(found)
        return found

    def set_all(rails: object = None, gpu: object = None, rapl: object = None, battery: object = None) -> None:
        monkeypatch.setattr(find, "find_jetson_rails", lambda: ask(rails))
        monkeypatch.setattr(find, "find_gpu_power", lambda: ask(gpu or []))
        monkeypatch.setattr(find, "find_rapl", lambda: ask(rapl))
        monkeypatch.setattr(find, "find_battery", lambda: ask(battery))

    return set_all


def test_the_working_device_counts_first(machine: Callable[..., None]) -> None:
    machine(gpu=[GPU], rapl=RAPL, battery=BATTERY)
    assert find_sources() == find_sources(on_gpu=True) == ([GPU, RAPL], NOWHERE)
    assert find_sources(on_gpu=False)[0] == [RAPL]  # an idle GPU's energy is not the work's
    machine(rapl=RAPL, battery=BATTERY)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [RAPL]
    machine(battery=BATTERY)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [BATTERY]
    machine(rails=RAILS, gpu=[GPU], rapl=RAPL)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [RAILS]


def test_an_idle_device_does_not_replace_an_unreadable_one(machine: Callable[..., None]) -> None:
    machine(gpu=[GPU], rapl="energy_uj cannot be read", battery="BAT0 is not discharging")
    assert find_sources(on_gpu=False) == ([], "energy_uj cannot be read; BAT0 is not discharging")
    assert find_sources(on_gpu=True)[0] == [GPU]
    machine(gpu="2 GPUs, and no CUDA runtime", rapl=RAPL)
    assert find_sources(on_gpu=True) == ([], "2 GPUs, and no CUDA runtime")
    machine(gpu=[GPU])
    assert "does not report its processor's power" in find_sources(on_gpu=False)[1]
    machine()
    assert find_sources() == ([], NOWHERE)
