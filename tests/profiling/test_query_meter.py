"""The energy of one query: measured if the sensor resolves it, otherwise the reason, never a guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fake_session
from virtual_time import VirtualTime
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError
from wise_edge.images import save_png
from wise_edge.power import gauge as power_gauge
from wise_edge.power.gauge import PowerGauge
from wise_edge.power.sources import PowerSource
from wise_edge.profiling import query_meter
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session

RAILS = PowerSource("rails", "power", ("VDD_IN", "VDD_SOC"), (0,), None, 0.002, lambda: (10.0, 3.0), (None, None))
PICTURE = np.zeros((20, 30, 3), np.uint8)


def ask() -> SegmentationResult:
    return Session(fake_session.FakePolicy(), fake_session.FakeMask(), {}).segment(PICTURE, "the ring")


def test_a_query_that_is_long_enough_is_measured_by_the_boards_total() -> None:
    world = VirtualTime()

    def work() -> SegmentationResult:
        world.pause(0.2)
        return ask()

    result = QueryMeter(RAILS, **world.options).measure(work)

    assert result.energy_j == pytest.approx({"total": 2.0})
    assert (result.energy_reason, result.energy_source) == (None, "rails: VDD_IN")
    assert result.to_dict()["energy_source"] == "rails: VDD_IN"


def test_a_query_that_is_too_short_is_not_measured() -> None:
    slow = replace(RAILS, interval_s=0.1)
    result = QueryMeter(slow, **VirtualTime().options).measure(ask)

    assert (result.energy_j, result.energy_source) == (None, None)
    assert "at least 5 are needed" in (result.energy_reason or "")


@pytest.mark.parametrize(("interval_s", "words"), [(None, "at unknown intervals"), (1.0, "every 1 s")])
def test_a_source_that_moves_seldom_measures_no_query(interval_s: float | None, words: str) -> None:
    result = QueryMeter(replace(RAILS, interval_s=interval_s)).measure(ask)

    assert result.energy_j is None
    assert result.energy_reason == f"rails changes {words}, too slowly for one query; use 'wise-edge profile' instead"


def test_a_source_that_is_lost_is_told_beside_the_answer() -> None:
    def read() -> tuple[float, ...]:
        raise DeviceError("the rail VDD_IN cannot be read")

    result = QueryMeter(replace(RAILS, read=read), **VirtualTime().options).measure(ask)

    assert result.answer_valid
    assert (result.energy_j, result.energy_reason) == (None, "rails: the rail VDD_IN cannot be read")


def test_without_a_source_the_reason_is_told() -> None:
    assert QueryMeter(None, "no sensor").measure(ask).energy_reason == "no sensor"


def test_the_sources_are_those_of_what_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[bool] = []

    def find_sources(on_gpu: bool) -> tuple[list[PowerSource], str]:
        asked.append(on_gpu)
        return [], "no sensor"

    monkeypatch.setattr(query_meter, "find_sources", find_sources)
    monkeypatch.setattr(power_gauge, "find_sources", find_sources)
    for find in (QueryMeter.find, PowerGauge.find):
        find()
        find(False)
    assert asked == [True, False] * 2

    fake_session.install(monkeypatch)  # on no GPU
    save_png(PICTURE, tmp_path / "picture.png")
    assert main(["run", str(tmp_path / "picture.png"), "the ring", "--energy"]) == 0
    assert asked[4:] == [False]
    assert "not measured: no sensor" in " ".join(capsys.readouterr().out.split())
