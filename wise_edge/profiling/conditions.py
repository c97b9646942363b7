"""The settings of a device while it is measured, and what changed: a figure is valid only under its conditions.

Sources: https://docs.kernel.org/admin-guide/pm/cpufreq.html, https://docs.kernel.org/driver-api/thermal/sysfs-api.html,
https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html (counters of
over-current events), https://docs.nvidia.com/deploy/nvml-api/ (violation times).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.jetson import Clock, read_clocks, read_power_mode
from wise_edge.power.nvml import GpuState, read_gpu_state
from wise_edge.power.sysfs import ROOT

_LEAST_SLEEP_S = 0.1
_LEAST_STEP_S = 1.0


@dataclass(frozen=True)
class Conditions:
    """The settings of a device at one moment.

    Attributes:
        power_mode: of nvpmodel; None without it.
        clocks: of the processors and a Jetson's GPU, with their bounds.
        temperatures_c: temperature of each thermal zone.
        throttled: state of each counter of throttling events, for comparison with a later state.
        gpu: state of a desktop's GPU; None if NVML finds none.
        slept_s: how long the machine has been suspended since it booted.
        unix_minus_monotonic_s: the system clock minus the monotonic clock, which nobody sets.
    """

    power_mode: str | None
    clocks: tuple[Clock, ...]
    temperatures_c: dict[str, float]
    throttled: dict[str, int]
    gpu: GpuState | None
    slept_s: float
    unix_minus_monotonic_s: float


def read_conditions(root: Path = ROOT) -> Conditions:
    """Return the current settings of the device.

    Args:
        root: root of the file system.
    """
    try:
        gpu = read_gpu_state()
    except DeviceError:
        gpu = None
    monotonic_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    return Conditions(
        power_mode=read_power_mode(root),
        clocks=tuple(read_clocks(root)),
        temperatures_c=dict(_temperatures(root)),
        throttled=dict(_throttling(root)),
        gpu=gpu,
        slept_s=time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic_s,
        unix_minus_monotonic_s=time.time() - monotonic_s,
    )


def find_changes(before: Conditions, after: Conditions) -> list[str]:
    """Return a line for each change that casts doubt on figures measured in between."""
    return [*_changed_settings(before, after), *_throttled(before, after), *_changed_time(before, after)]


def _changed_settings(before: Conditions, after: Conditions) -> Iterator[str]:
    if before.power_mode != after.power_mode:
        yield f"the power mode changed from {before.power_mode} to {after.power_mode}"
    bounds = {clock.name: (clock.least_hz, clock.most_hz) for clock in before.clocks}
    for clock in after.clocks:
        was = bounds.get(clock.name)
        if was is not None and was != (clock.least_hz, clock.most_hz):
            low, high = (f"{hz / 1e6:.0f}" for hz in was)
            now = f"{clock.least_hz / 1e6:.0f}-{clock.most_hz / 1e6:.0f} MHz"
            yield f"the bounds of the clock {clock.name} changed from {low}-{high} MHz to {now}"


def _throttled(before: Conditions, after: Conditions) -> Iterator[str]:
    for name, count in after.throttled.items():
        if (more := count - before.throttled.get(name, count)) > 0:
            yield f"the device was throttled: {name} counted {more} more events"
    if before.gpu is None or after.gpu is None:
        return
    for why, seconds in after.gpu.violations_s.items():
        if (more_s := seconds - before.gpu.violations_s.get(why, seconds)) > 0:
            yield f"the GPU was throttled by {why} for {more_s:.2f} s"


def _changed_time(before: Conditions, after: Conditions) -> Iterator[str]:
    if (slept_s := after.slept_s - before.slept_s) > _LEAST_SLEEP_S:
        yield f"the machine was suspended for {slept_s:.1f} s"
    step_s = after.unix_minus_monotonic_s - before.unix_minus_monotonic_s - max(0.0, slept_s)
    if abs(step_s) > _LEAST_STEP_S:
        yield f"the system clock was set by {step_s:+.1f} s"


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        try:  # a Jetson's zones of parts that are off cannot be read
            yield (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError, OverflowError):
            continue


def _throttling(root: Path) -> Iterator[tuple[str, int]]:
    """Yield event counters: a Jetson's over-current, an Intel processor's thermal throttling."""
    counters = [
        *sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")),
        *sorted((root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/*_throttle_count")),
    ]
    for counter in counters:
        parents = 2 if counter.parent.name == "thermal_throttle" else 1
        name = counter.name if parents == 1 else f"{counter.parents[1].name} {counter.name}"
        try:
            yield name, int(counter.read_text())
        except (OSError, ValueError):
            continue
