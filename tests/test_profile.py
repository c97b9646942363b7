"""A profile gives latency by phase, and energy where a source tells it; elsewhere the reason."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import fake_session
import numpy as np
import pytest
from fake_session import FakeMask, FakePolicy

from wise_edge import nvml, power, profiler
from wise_edge.cli.main import main
from wise_edge.datasets.base import Example
from wise_edge.errors import DeviceError, UsageError
from wise_edge.power import PowerSource
from wise_edge.profiler import PARTS, Meter, profile_session
from wise_edge.runtimes.session import Session

EXAMPLES = [
    Example(f"{n}", "the ring", np.full((20, 30, 3), n, np.uint8), (2, 2, 9, 9), ((3, 3), (5, 5)), None, None, None)
    for n in range(3)
]
CONSTANT = PowerSource("a load", "power", ("in",), (0,), None, None, lambda: (10.0,), (None,))


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "WINDOW_S", 0.15)
    monkeypatch.setattr(profiler, "IDLE_S", 0.15)


class Busy(FakePolicy):
    """Takes 10 ms for a picture, in which the load takes more."""

    def encode(self, image: np.ndarray) -> fake_session.FakeFrame:
        time.sleep(0.01)
        return super().encode(image)


def test_phases_and_their_sum_are_those_of_the_results() -> None:
    policy = FakePolicy()
    cost = profile_session(Session(policy, FakeMask(), {}), EXAMPLES, "wise-s", 2, Meter(None, "no sensor"))

    assert (cost.variant, cost.policy, cost.mask, cost.queries, cost.warm_up) == ("wise-s", "fake", "fake", 6, 3)
    phases = cost.latency_ms
    assert [phases[name].p50 for name in ("preprocess", "vision_encode", "prefill", "mask_encode")] == [2, 20, 12, 30]
    parts = sum(spread.mean for name, spread in phases.items() if name not in ("total", "other"))
    assert parts + phases["other"].mean == pytest.approx(phases["total"].mean)
    assert phases["decode"].interval == (phases["decode"].mean,) * 2
    assert cost.step_ms == pytest.approx(3.0)
    assert set(cost.energy) == set(PARTS)
    assert {(energy.energy_j, energy.reason) for energy in cost.energy.values()} == {(None, "no sensor")}


def test_energy_is_that_of_the_windows_and_idle_is_taken_off() -> None:
    with Meter(CONSTANT).running() as meter:
        cost = profile_session(Session(Busy(), FakeMask(), {}), EXAMPLES, None, 1, meter)

    assert meter.idle_w == pytest.approx(10.0, rel=0.02)
    query = cost.energy["query"]
    assert query.energy_j == pytest.approx(10.0 * query.window_s / query.times)
    assert query.window_s >= 0.15
    assert query.window_s / query.times >= 0.01
    assert query.net_j == pytest.approx(0.0, abs=0.02 * (query.energy_j or 0))
    assert cost.energy["mask_decode"].times > query.times
    assert (query.error_share, query.reason) == (0.0, None)


def test_what_a_device_takes_idle_is_known_from_a_counter_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "IDLE_S", 1.5)

    def read() -> tuple[float]:
        return (time.perf_counter() // 0.01 * 0.1,)  # 10 W, in steps of 10 ms

    with Meter(replace(CONSTANT, kind="energy", interval_s=0.01, read=read)).running() as meter:
        assert meter.idle_w == pytest.approx(10.0, rel=0.02)


def test_a_window_that_cannot_be_resolved_is_not_measured() -> None:
    with Meter(replace(CONSTANT, interval_s=0.2)).running() as meter:
        energy = meter.measure(lambda: time.sleep(0.05))

    assert (energy.energy_j, energy.net_j) == (None, None)
    assert "at least 5 are needed" in (energy.reason or "")
    assert energy.times >= 3


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one picture"):
        profile_session(Session(FakePolicy(), FakeMask(), {}), [], None, 1, Meter(None))


def only(monkeypatch: pytest.MonkeyPatch, found: PowerSource | DeviceError | None) -> None:
    """Let the machine have one source of power, one that may not be read, or none."""

    def find() -> PowerSource | None:
        if isinstance(found, DeviceError):
            raise found
        return found

    for module, name in ((power, "find_jetson_rails"), (nvml, "find_gpu_power"), (power, "find_battery")):
        monkeypatch.setattr(module, name, lambda: None)
    monkeypatch.setattr(power, "find_rapl", find)


def test_the_command_prints_every_variant_and_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    only(monkeypatch, DeviceError("energy_uj cannot be read"))
    command = ["profile", "--scenes", "2", "--variants", "wise-s,answer", "--backends", "onnx,llama"]

    assert main([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [call["policy_backend"] for call in opened.calls] == ["onnx", "llama"]
    assert [cost["variant"] for cost in data["costs"]] == ["wise-s", "answer"] * 2
    assert data["power_source"] is None
    assert data["costs"][0]["energy"]["query"]["reason"] == "energy_uj cannot be read"

    only(monkeypatch, CONSTANT)
    assert main([*command[:3], "--variants", "wise-s"]) == 0
    told = capsys.readouterr().out
    assert "wise-s on fake and fake: 2 queries after 3 to warm up" in told
    assert "energy, query: " in told
    assert "power from a load, idle 10.00 W" in told


def test_a_variant_that_is_unknown_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    only(monkeypatch, None)

    assert main(["profile", "--scenes", "1", "--variants", "loud"]) == 2
    assert "unknown variant 'loud'" in capsys.readouterr().err
