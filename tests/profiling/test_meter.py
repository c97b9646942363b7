"""A meter reports the energy of windows from every source, or why it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from virtual_time import VirtualTime
from wise_edge.errors import DeviceError
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.meter import Meter

CONSTANT = PowerSource("a load", "power", ("in",), (0,), None, None, lambda: (10.0,), (None,))
WINDOW_S = 0.15


class Busy:
    """Work that takes a while, and a load that takes more meanwhile, the more the longer it runs."""

    def __init__(self, length_s: float, world: VirtualTime) -> None:
        self._length_s, self._world = length_s, world
        self._began_s: float | None = None

    def __call__(self) -> None:
        self._began_s = self._world.now_s
        self._world.pause(self._length_s)
        self._began_s = None

    def source(self) -> PowerSource:
        return replace(CONSTANT, read=lambda: (self._power_w(),))

    @property
    def energy_j(self) -> float:
        """What it takes once: 8 W, and 20 W more in its second half."""
        return 18.0 * self._length_s

    def _power_w(self) -> float:
        began_s = self._began_s
        if began_s is None:
            return 8.0
        return 28.0 if self._world.now_s - began_s > self._length_s / 2 else 8.0


def test_energy_is_that_of_the_window_and_idle_is_taken_off() -> None:
    world = VirtualTime()
    with Meter([CONSTANT], window_s=WINDOW_S, **world.options).running() as meter:
        window = meter.record(lambda: world.pause(0.01))

    assert window is not None
    (energy,) = meter.energy(window)
    assert energy.energy_j == pytest.approx(10.0 * window.length_s / window.times)
    assert energy.net_j == pytest.approx(0.0, abs=0.02 * (energy.energy_j or 0))
    assert window.length_s >= WINDOW_S
    assert (energy.error_share, energy.reason) == (0.0, None)
    (facts,) = meter.facts()
    assert (facts.idle_before_w, facts.idle_after_w) == pytest.approx((10.0, 10.0))
    assert (facts.total, facts.dropped, facts.lost) == (("in",), 0, None)
    assert facts.readings > 50
    assert 0.0064 < (facts.largest_gap_s or 0) < 0.0097  # 8 ms, varied by a fifth either way


@pytest.mark.parametrize("length_s", [0.03, 0.06])
def test_phases_too_short_for_a_sensor_are_measured_by_repetition(length_s: float) -> None:
    world = VirtualTime()
    work = Busy(length_s, world)
    with Meter([work.source()], window_s=1.5, **world.options).running() as meter:
        window = meter.record(work)

    (energy,) = meter.energy(window)
    assert energy.energy_j is not None, energy.reason
    assert energy.energy_j == pytest.approx(work.energy_j, rel=0.05)
    assert meter.facts()[0].resolution == pytest.approx(20.0)


def test_a_window_grows_until_it_is_sure() -> None:
    world = VirtualTime()
    rng = Random(0)
    noisy = replace(CONSTANT, read=lambda: (10.0 + 2.5 * rng.random(),))
    with Meter([noisy], window_s=WINDOW_S, **world.options).running() as meter:
        window = meter.record(lambda: world.pause(0.01))

    assert window is not None
    assert window.length_s > 1.9 * WINDOW_S
    assert meter.energy(window)[0].energy_j == pytest.approx(11.25 * window.length_s / window.times, rel=0.02)


def test_what_a_device_takes_idle_is_known_from_a_counter_too() -> None:
    world = VirtualTime()

    def read() -> tuple[float]:
        return (world.now_s // 0.01 * 0.1,)  # 10 W, in steps of 10 ms

    with Meter(
        [replace(CONSTANT, kind="energy", interval_s=0.01, read=read)], window_s=1.5, **world.options
    ).running() as meter:
        pass

    assert meter.facts()[0].idle_before_w == pytest.approx(10.0, rel=0.02)


def test_a_window_that_cannot_be_resolved_is_not_measured() -> None:
    world = VirtualTime()
    with Meter([replace(CONSTANT, interval_s=0.5)], window_s=WINDOW_S, **world.options).running() as meter:
        window = meter.record(lambda: world.pause(0.05))

    (energy,) = meter.energy(window)
    assert (energy.energy_j, energy.net_j) == (None, None)
    assert "at least 5 are needed" in (energy.reason or "")


def test_a_second_source_checks_the_first() -> None:
    world = VirtualTime()
    sources = [CONSTANT, replace(CONSTANT, name="another", read=lambda: (11.0,))]
    with Meter(sources, window_s=WINDOW_S, **world.options).running() as meter:
        window = meter.record(lambda: world.pause(0.01))

    first, second = (energy.energy_j for energy in meter.energy(window))
    assert first is not None
    assert second == pytest.approx(1.1 * first, rel=1e-3)
    assert [facts.name for facts in meter.facts()] == ["a load", "another"]


@pytest.mark.parametrize("virtual", [False, True])
def test_a_sampler_reads_while_it_runs_and_rests_when_told(virtual: bool) -> None:
    reads: list[int] = []

    def read() -> tuple[float]:
        reads.append(0)
        return (10.0,)

    source = replace(CONSTANT, read=read)
    world = VirtualTime()
    pause = world.pause if virtual else time.sleep
    sampler = world.make_sampler(source, world.clock) if virtual else PowerSampler(source)

    def reads_on() -> bool:
        begun = len(reads)
        return any(len(reads) > begun or pause(0.01) for _ in range(3000))  # type: ignore[func-returns-value]

    with sampler.running():
        assert reads_on()
        with sampler.resting():
            resting = len(reads)
            pause(0.1)
            assert len(reads) <= resting + 1  # one was being read
        assert reads_on()
    assert len(sampler.trace().times_s) == len(reads)


def test_without_a_source_nothing_is_repeated() -> None:
    meter, times = Meter([], "no sensor"), []
    with meter.running():
        assert meter.record(lambda: times.append(0)) is None

    assert (times, meter.energy(None), meter.facts(), meter.reason) == ([], (), [], "no sensor")


def test_rails_that_vanish_leave_what_came_before() -> None:
    world = VirtualTime()
    lost_s = world.now_s + 3.5 * WINDOW_S

    def read() -> tuple[float]:
        if world.now_s > lost_s:
            raise DeviceError("the rail VDD_IN cannot be read")
        return (10.0,)

    with Meter([replace(CONSTANT, read=read)], window_s=WINDOW_S, **world.options).running() as meter:
        before = meter.record(lambda: world.pause(0.01))
        world.pause(2 * WINDOW_S)
        after = meter.record(lambda: world.pause(0.01))

    assert meter.energy(before)[0].energy_j is not None
    assert meter.energy(after)[0].reason == "the rail VDD_IN cannot be read"
    assert (meter.facts()[0].idle_after_w, meter.facts()[0].lost) == (None, "the rail VDD_IN cannot be read")


def test_what_was_measured_before_an_interrupt_is_told() -> None:
    world = VirtualTime()
    meter = Meter([CONSTANT], window_s=WINDOW_S, **world.options)
    window = None
    with pytest.raises(KeyboardInterrupt), meter.running():
        window = meter.record(lambda: world.pause(0.01))
        world.pause(0.05)
        raise KeyboardInterrupt

    assert meter.energy(window)[0].energy_j is not None
    assert meter.facts()[0].idle_after_w is None


def log(file: Path, power: Callable[[float], float], *, start_s: float, end_s: float, pause_s: float = 0.02) -> None:
    """Write what a wall meter would log."""
    lines = ["time,power_w,volts"]
    while start_s < end_s:
        lines.append(f"{start_s:.4f},{power(start_s)},230")
        start_s += pause_s
    file.write_text("\n".join(lines) + "\n")


def test_a_wall_meters_log_is_merged_by_its_times(tmp_path: Path) -> None:
    world = VirtualTime()
    file = tmp_path / "meter.csv"
    began_s = world.now_s
    with Meter(
        [CONSTANT], wall_meter=file, window_s=WINDOW_S, unix_clock=world.clock, **world.options
    ).running() as meter:
        window = meter.record(lambda: world.pause(0.01))
        world.pause(0.05)
        log(file, lambda at_s: 40.0, start_s=began_s - 1, end_s=world.now_s + 1)

    wall, rails = meter.energy(window)
    assert window is not None
    assert wall.energy_j == pytest.approx(40.0 * window.length_s / window.times)
    assert rails.energy_j == pytest.approx(10.0 * window.length_s / window.times)
    assert meter.facts()[0].name == "wall meter (meter.csv)"
    assert meter.facts()[0].idle_before_w == pytest.approx(40.0)


def test_a_meter_that_logs_once_a_second_is_waited_for(tmp_path: Path) -> None:
    world = VirtualTime()
    file = tmp_path / "meter.csv"

    def pause(seconds: float) -> None:  # meanwhile the logger appends what it read
        world.pause(seconds)
        log(file, lambda at_s: 40.0, start_s=0.0, end_s=world.now_s, pause_s=1.0)

    options = world.options | {"pause": pause}
    with Meter(wall_meter=file, window_s=10.0, unix_clock=world.clock, **options).running() as meter:
        meter.record(lambda: pause(1.0))
    assert meter.facts()[0].idle_before_w == meter.facts()[0].idle_after_w == pytest.approx(40.0)


def test_a_log_of_another_time_gives_no_energy(tmp_path: Path) -> None:
    world = VirtualTime()
    file = tmp_path / "meter.csv"
    log(file, lambda at_s: 40.0, start_s=1e9, end_s=1e9 + 10)
    options = world.options | {"unix_clock": lambda: world.clock() + 1e9 + 7200}
    with Meter(wall_meter=file, window_s=WINDOW_S, **options).running() as meter:
        window = meter.record(lambda: world.pause(0.01))
    assert meter.energy(window)[0].reason == "its readings are 2.0 hours too early for the profile"


def test_a_log_that_ends_too_early_or_a_clock_that_was_set_gives_no_energy(tmp_path: Path) -> None:
    world = VirtualTime()
    file = tmp_path / "meter.csv"
    log(file, lambda at_s: 40.0, start_s=world.now_s - 5, end_s=world.now_s)
    with Meter(wall_meter=file, window_s=WINDOW_S, unix_clock=world.clock, **world.options).running() as meter:
        window = meter.record(lambda: world.pause(0.01))
    assert meter.energy(window)[0].reason == "the window extends beyond the readings"

    clock = iter([1000.0, 1003.5])
    log(file, lambda at_s: 40.0, start_s=990.0, end_s=1010.0)
    meter = Meter(wall_meter=file, window_s=WINDOW_S, unix_clock=lambda: next(clock), **world.options)
    with meter.running():
        window = meter.record(lambda: world.pause(0.01))
    assert "the system clock was set by +" in (meter.energy(window)[0].reason or "")


def test_a_window_holds_whole_rounds(tmp_path: Path) -> None:
    now_s = [0.0]

    def work() -> None:
        now_s[0] += 1.0

    def record(window_s: float, turns: int) -> int:
        meter = Meter(wall_meter=tmp_path / "none.csv", window_s=window_s, clock=lambda: now_s[0])
        window = meter.record(work, turns)
        assert window is not None
        return window.times

    assert record(0.5, 3) == 3  # a slow device does one round, however long that takes
    assert record(6.5, 3) == 9
    assert record(6.5, 1) == 7


def test_a_source_of_a_part_of_the_machine_tells_no_other_parts_work() -> None:
    world = VirtualTime()
    gpu, processor = replace(CONSTANT, scope="gpu"), replace(CONSTANT, scope="processor")

    def measured(*sources: PowerSource, on_gpu: bool) -> list[str | None]:
        with Meter(sources, window_s=WINDOW_S, **world.options).running() as meter:
            window = meter.record(lambda: world.pause(0.01))
        refused = [energy for energy in meter.energy(window, on_gpu) if not energy.times]
        assert all(energy.energy_j is None for energy in refused)
        return [energy.reason if energy in refused else None for energy in meter.energy(window, on_gpu)]

    assert measured(gpu, processor, on_gpu=True) == [None, None]
    assert measured(gpu, processor, on_gpu=False) == [
        "this runs on the processor and the source measures only the GPU; profile it separately",
        None,
    ]
    assert measured(processor, on_gpu=False) == [None]
    assert measured(processor, on_gpu=True) == [
        "this runs on a GPU and the source measures only the processor; profile it separately"
    ]
    assert measured(CONSTANT, on_gpu=True) == measured(CONSTANT, on_gpu=False) == [None]


def test_a_wall_meters_log_that_was_not_read_is_the_reason(tmp_path: Path) -> None:
    meter = Meter(wall_meter=tmp_path / "meter.csv", window_s=0.01)
    with pytest.raises(KeyboardInterrupt), meter.running():
        raise KeyboardInterrupt
    assert (meter.traces, meter.reason) == ([], "the wall meter's log was not read")
