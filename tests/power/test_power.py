"""Power and energy are right within the bound, or said not to be measurable."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from jetson_trees import BOARDS, write_tree
from wise_edge.errors import DeviceError
from wise_edge.power import find as sources
from wise_edge.power.find import NOWHERE, find_sources
from wise_edge.power.sources import PowerSource, find_battery, find_jetson_rails, find_rapl, total_of
from wise_edge.power.trace import PowerSampler, PowerTrace

Power = Callable[[float], float]

TRACES: dict[str, Power] = {
    "constant": lambda t: 12.0,
    "step": lambda t: 5.0 if t < 1.003 else 25.0,
    "two steps": lambda t: 25.0 if 0.8017 < t < 1.2346 else 5.0,
    "ramp": lambda t: 5.0 + 4.0 * t,
    "sawtooth": lambda t: 5.0 + 20.0 * (t / 0.31 % 1.0),
    "sawtooth that keeps time": lambda t: 5.0 + 20.0 * (t / 0.05 % 1.0),
    "spikes": lambda t: 40.0 if t % 0.21 < 0.004 else 8.0,
    "square of 3 ms": lambda t: 30.0 if t % 0.006 < 0.003 else 3.0,
}
WINDOWS = [(0.5, 0.53), (0.7, 0.76), (0.9, 1.1), (0.5, 1.5), (0.3, 2.3), (0.2, 5.2)]


def true_energy(power: Power, start_s: float, end_s: float) -> float:
    at_s = np.linspace(start_s, end_s, 200_001)
    middles = (at_s[1:] + at_s[:-1]) / 2
    return float(sum(map(power, middles)) * (at_s[1] - at_s[0]))


class World:
    """Virtual time in which a sampler runs, with a load and a sensor that may be late or leave readings out."""

    def __init__(self, power: Power, *, end_s: float = 5.5, trouble: bool = False, seed: int = 0) -> None:
        self.now_s, self._end_s, self._trouble = 0.0, end_s, trouble
        self.power = power
        self._random = Random(seed)

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        late = 0.0
        if self._trouble:
            late = self._random.expovariate(1 / 0.001) + (0.03 if self._random.random() < 0.01 else 0.0)
        self.now_s += seconds + late
        return self.now_s > self._end_s

    def source(self, **changes: object) -> PowerSource:
        plain = PowerSource("a load", "power", ("in",), (0,), None, None, lambda: (self.power(self.now_s),), (None,))
        return replace(plain, **changes)  # type: ignore[arg-type]

    def counter(self, interval_s: float = 0.02, wrap_j: float | None = None) -> PowerSource:
        """Energy since 100 s ago, which moves every `interval_s`, and begins anew at `wrap_j`."""
        held = [(-1.0, 0.0)]

        def read() -> tuple[float]:
            moved_s = self.now_s // interval_s * interval_s
            if moved_s > held[0][0]:
                since_s = max(held[0][0], 0.0)
                held[0] = (moved_s, held[0][1] + (true_energy_fast(self.power, since_s, moved_s) if moved_s > 0 else 0))
            return (held[0][1] % wrap_j if wrap_j else held[0][1],)

        return self.source(kind="energy", interval_s=interval_s, read=read, wrap_j=(wrap_j,))

    def sample(self, source: PowerSource) -> PowerTrace:
        sampler = PowerSampler(source, self.clock, self.wait)
        sampler.sample()
        return sampler.trace()


def true_energy_fast(power: Power, start_s: float, end_s: float) -> float:
    count = max(20, int((end_s - start_s) / 2e-5))
    step = (end_s - start_s) / count
    return sum(power(start_s + (place + 0.5) * step) for place in range(count)) * step


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("trouble", [False, True])
@pytest.mark.parametrize("kind", ["power", "energy"])
def test_energy_is_right_or_not_measurable(name: str, trouble: bool, kind: str) -> None:
    power, measured = TRACES[name], 0
    for seed in range(3):
        world = World(power, trouble=trouble, seed=seed)
        trace = world.sample(world.source() if kind == "power" else world.counter())
        for start_s, end_s in WINDOWS:
            energy = trace.energy(start_s, end_s)
            if energy.energy_j is None:
                assert energy.reason
                continue
            measured += 1
            assert energy.energy_j == pytest.approx(true_energy(power, start_s, end_s), rel=0.02)
            assert energy.error_share is not None
            assert energy.error_share <= 0.02
    if name in ("constant", "step", "two steps", "ramp", "sawtooth"):
        assert measured >= (1 if trouble else 3)  # the longest window at least, in spite of gaps of 30 ms in one seed


def test_short_windows_are_not_measurable_at_a_slow_rate() -> None:
    world = World(TRACES["constant"])
    trace = world.sample(world.source(interval_s=0.1))

    short, long = trace.energy(0.5, 0.56), trace.energy(0.5, 3.0)

    assert short.energy_j is None
    assert short.reason == f"{short.samples} samples in 60 ms, at least 5 are needed"
    assert long.energy_j == pytest.approx(30.0, rel=1e-6)
    assert long.samples == pytest.approx(50, abs=3)


def test_a_gap_may_hide_what_happened_elsewhere() -> None:
    world = World(lambda t: 30.0 if 1.0 < t < 1.5 else 5.0)
    trace = world.sample(world.source())
    kept = (trace.times_s < 1.2) | (trace.times_s > 1.32)
    holed = PowerTrace(trace.source, trace.times_s[kept], np.array([[TRACES["constant"](0.0)]] * int(kept.sum())))
    values = np.array([[world.power(at_s)] for at_s in trace.times_s[kept]])
    holed = PowerTrace(trace.source, trace.times_s[kept], values)

    assert trace.energy(0.9, 1.9).energy_j is not None
    lacking = holed.energy(0.9, 1.9)
    assert lacking.energy_j is None
    assert lacking.largest_gap_s == pytest.approx(0.12, abs=0.015)
    assert "uncertain" in (lacking.reason or "")


def test_a_counter_that_begins_anew_loses_nothing() -> None:
    world = World(TRACES["sawtooth"])
    trace = world.sample(world.counter(wrap_j=7.5))

    energy = trace.energy(0.3, 5.1)

    assert energy.energy_j == pytest.approx(true_energy(TRACES["sawtooth"], 0.3, 5.1), rel=0.02)


def test_a_counter_that_its_driver_set_back_is_not_measurable_there() -> None:
    world = World(TRACES["constant"])
    counter = world.counter()

    def read() -> tuple[float]:
        return (counter.read()[0] - (20.0 if world.now_s > 2.0 else 0.0),)

    trace = world.sample(replace(counter, read=lambda: (read()[0] + 100.0,)))

    assert trace.energy(0.5, 1.5).energy_j == pytest.approx(12.0, rel=0.02)
    assert trace.energy(1.5, 2.5).reason == "the counter began anew in the window: its driver was loaded again"


def test_the_power_around_a_query_is_told_for_its_picture() -> None:
    world = World(TRACES["ramp"])
    gauge, counter = world.sample(world.source()), World(TRACES["ramp"])
    times_s, power_w = gauge.power(1.0, 1.2)
    assert (times_s[0] <= 1.0, times_s[-1] >= 1.2) == (True, True)
    assert power_w == pytest.approx(5.0 + 4.0 * times_s)

    times_s, power_w = counter.sample(counter.counter()).power(1.0, 1.2)
    assert power_w == pytest.approx(5.0 + 4.0 * times_s, abs=3.0)  # a counter's moves are seen late by up to a pause

    unknown = replace(world.source(), total=(), reason="no total")
    assert len(PowerTrace(unknown, gauge.times_s, gauge.times_s[:, None]).power(1.0, 1.2)[0]) == 0


def test_readings_that_make_no_sense_are_dropped_and_counted() -> None:
    rng = Random(1)
    world = World(lambda t: rng.choice([math.nan, -1.0, math.inf]) if rng.random() < 0.1 else 10.0)
    trace = world.sample(world.source())

    assert trace.dropped > 50
    assert trace.energy(1.0, 4.0).energy_j == pytest.approx(30.0)


def test_a_source_that_is_lost_says_so_for_what_came_after() -> None:
    world = World(TRACES["constant"])

    def read() -> tuple[float]:
        if world.now_s > 2.0:
            raise DeviceError("the rail VDD_IN cannot be read")
        return (12.0,)

    trace = world.sample(world.source(read=read))

    assert trace.energy(0.5, 1.5).energy_j == pytest.approx(12.0)
    assert trace.energy(1.5, 2.5).reason == "the rail VDD_IN cannot be read"
    assert PowerTrace(world.source(), np.empty(0), np.empty((0, 1))).energy(0, 1).reason == (
        "the window reaches beyond the samples"
    )


def test_a_source_that_reads_no_power_has_no_energy() -> None:
    world = World(lambda t: 0.0)
    energy = world.sample(world.source()).energy(1.0, 2.0)

    assert (energy.energy_j, energy.error_share) == (None, None)
    assert energy.reason == "the source reads no power"


def test_time_without_samples_makes_short_loads_no_rarer() -> None:
    times_s = np.arange(0.0, 4.0, 0.01)
    values = np.where(np.arange(len(times_s)) % 20 == 0, 40.0, 8.0)[:, None]  # a spike of one sample, five a second
    source = World(TRACES["spikes"]).source()
    rested_s = np.where(times_s < 2.0, times_s, times_s + 60.0)  # the sampler rested for a minute
    whole, rested = (PowerTrace(source, at_s, values).energy(0.305, 1.805, 1.0) for at_s in (times_s, rested_s))

    assert whole.error_share is not None
    assert rested.error_share == pytest.approx(whole.error_share, rel=0.01)


def test_a_sampler_runs_beside_work_and_ends_with_it() -> None:
    source = World(TRACES["constant"]).source()
    with PowerSampler(source).running() as sampler:
        while len(sampler.trace().times_s) < 20:
            threading.Event().wait(0.01)
    trace = sampler.trace()

    assert np.median(np.diff(trace.times_s)) >= 0.0064  # at its own pace, however long the work waits
    assert "power" not in {thread.name for thread in threading.enumerate()}
    assert trace.energy(trace.times_s[1], trace.times_s[-2]).energy_j is not None


def write_rails(root: Path, watts: dict[str, float]) -> None:
    """Give the rails of a tree what they measure, at 5 V; an INA238 in µW."""
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
def test_the_total_of_each_board_is_by_its_rule(
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
    assert "the rails MY_RAIL, OTHER are of no board that is known" in (source.reason or "")
    world = World(TRACES["constant"])
    assert world.sample(source).energy(1.0, 2.0).reason == source.reason
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


def test_the_platforms_counter_holds_the_others(tmp_path: Path) -> None:
    _powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000), "intel-rapl:1": ("psys", 9_000_000)})
    source = find_rapl(tmp_path)

    assert source is not None
    assert total_of(source, source.read()) == pytest.approx(9.0)


def test_counters_that_may_not_be_read_say_how_to(tmp_path: Path) -> None:
    _powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000)})
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir()  # root reads every file, but no folder

    with pytest.raises(DeviceError, match=r"energy_uj cannot be read.*udev rule"):
        find_rapl(tmp_path)


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"power_now": "8500000"}, 8.5),
        ({"voltage_now": "12000000", "current_now": "-700000"}, 8.4),
    ],
)
def test_a_battery_tells_what_flows_out(files: dict[str, str], watts: float, tmp_path: Path) -> None:
    write_supply(tmp_path, "AC", type="Mains", online="0")
    write_supply(tmp_path, "BAT0", type="Battery", status="Discharging", **files)
    source = find_battery(tmp_path)

    assert source is not None
    assert (source.name, source.read()) == ("power supply BAT0", pytest.approx((watts,)))
    write_supply(tmp_path, "BAT0", status="Charging")
    with pytest.raises(DeviceError, match="BAT0 is not being discharged"):
        source.read()


def write_supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for attribute, text in files.items():
        (folder / attribute).write_text(f"{text}\n")


def test_supplies_that_are_no_battery_of_the_machine_measure_nothing(tmp_path: Path) -> None:
    contract = {"voltage_now": "20000000", "current_now": "3000000"}
    write_supply(tmp_path, "ucsi-source-psy-USBC000:001", type="USB", online="1", **contract)
    write_supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", power_now="9")
    assert find_battery(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"status": "Charging"}, r"the battery BAT0 is not being discharged \(status: Charging\)"),
        ({"status": "Full"}, r"status: Full"),
        ({}, r"status: none"),
    ],
)
def test_a_battery_that_is_not_discharged_is_told(files: dict[str, str], line: str, tmp_path: Path) -> None:
    write_supply(tmp_path, "BAT0", type="Battery", power_now="8500000", **files)
    with pytest.raises(DeviceError, match=line):
        find_battery(tmp_path)


def test_a_battery_without_power_is_passed_over(tmp_path: Path) -> None:
    write_supply(tmp_path, "BAT0", type="Battery", status="Discharging", voltage_now="12000000")
    with pytest.raises(DeviceError, match="BAT0 tells no power"):
        find_battery(tmp_path)
    write_supply(tmp_path, "BAT1", type="Battery", status="Discharging", power_now="8500000")
    source = find_battery(tmp_path)
    assert source is not None
    assert source.read() == pytest.approx((8.5,))


def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    assert [find(tmp_path) for find in (find_jetson_rails, find_rapl, find_battery)] == [None] * 3


GPU = PowerSource("gpu", "energy", ("GPU",), (0,), None, 0.1, lambda: (1.0,), (None,), "gpu")
RAPL = replace(GPU, name="rapl", parts=("package-0",), scope="processor")
BATTERY = replace(GPU, name="battery", kind="power", parts=("BAT0",), scope="machine")
RAILS = replace(BATTERY, name="rails", parts=("VDD_IN",))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the machine has; a text is why something cannot be read."""

    def find(found: object) -> object:
        if isinstance(found, str):
            raise DeviceError(found)
        return found

    def set_all(rails: object = None, gpu: object = None, rapl: object = None, battery: object = None) -> None:
        monkeypatch.setattr(sources, "find_jetson_rails", lambda: find(rails))
        monkeypatch.setattr(sources, "find_gpu_power", lambda: find(gpu or []))
        monkeypatch.setattr(sources, "find_rapl", lambda: find(rapl))
        monkeypatch.setattr(sources, "find_battery", lambda: find(battery))

    return set_all


def test_what_works_counts_first(machine: Callable[..., None]) -> None:
    machine(gpu=[GPU], rapl=RAPL, battery=BATTERY)
    assert find_sources() == find_sources(on_gpu=True) == ([GPU, RAPL], NOWHERE)
    assert find_sources(on_gpu=False)[0] == [RAPL]  # an idle GPU's energy is no query's
    machine(rapl=RAPL, battery=BATTERY)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [RAPL]
    machine(battery=BATTERY)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [BATTERY]
    machine(rails=RAILS, gpu=[GPU], rapl=RAPL)
    assert find_sources(on_gpu=True)[0] == find_sources(on_gpu=False)[0] == [RAILS]


def test_what_works_and_cannot_be_read_is_replaced_by_nothing_that_idles(machine: Callable[..., None]) -> None:
    machine(gpu=[GPU], rapl="energy_uj cannot be read", battery="BAT0 is not being discharged")
    assert find_sources(on_gpu=False) == ([], "energy_uj cannot be read; BAT0 is not being discharged")
    assert find_sources(on_gpu=True)[0] == [GPU]
    machine(gpu="2 GPUs, and no CUDA runtime", rapl=RAPL)
    assert find_sources(on_gpu=True) == ([], "2 GPUs, and no CUDA runtime")
    machine(gpu=[GPU])
    assert "does not tell its processor's power" in find_sources(on_gpu=False)[1]
    machine()
    assert find_sources() == ([], NOWHERE)
