"""A node's diagnostics: rates, missing frames or results, and power."""

from __future__ import annotations

import pytest

from node_harness import Harness, make_frame
from node_results import node_result, placed_object
from tracking_fakes import SeeingMask, SlowPolicy
from wise_edge.power.gauge import PowerGauge
from wise_edge.power.sources import PowerSource
from wise_edge.robot.diagnostics import Record
from wise_edge.robot.node import Node
from wise_edge.runtimes.session import Session


def test_diagnostics_report_rates_and_missing_frames_or_results() -> None:
    now = [100.0]
    harness = Harness(clock=lambda: now[0])
    node = harness.node
    assert (node.diagnostics().level, node.diagnostics().message) == ("warn", "no frame came in the last 5 s")
    for number in range(60):
        now[0] += 0.1
        node.put(make_frame(number))
    state = node.diagnostics()
    assert state.frames_hz == pytest.approx(10.0, abs=0.3)
    assert (state.level, state.message, state.delay_ms_p50) == ("ok", "idle", None)
    node.follow("the square")
    assert node.diagnostics().message == "no result in the last 5 s"
    now[0] += 6
    assert node.diagnostics().frames_hz == 0


def test_diagnostics_report_the_power_of_gauges_and_counters() -> None:
    now = [0.0]

    def gauge(kind: str, *values: float) -> PowerGauge:
        left = iter(values)
        source = PowerSource("s", kind, ("in",), (0,), None, None, lambda: (next(left),), (None,))  # type: ignore[arg-type]
        return PowerGauge(source, clock=lambda: now[0])

    assert gauge("power", 12.5).read() == (12.5, None)
    counter = gauge("energy", 100.0, 130.0, 5.0)
    assert counter.read()[0] is None
    now[0] = 2.0
    assert counter.read() == (15.0, None)
    now[0] = 3.0
    assert counter.read() == (None, "the counter was reset")
    assert PowerGauge(None, "no sensor").read() == (None, "no sensor")

    node = Node(Session(SlowPolicy(), SeeingMask(), {}), print, power=gauge("power", 7.0))
    assert node.diagnostics().power_w == 7.0


def test_what_the_last_result_says_is_said() -> None:
    record = Record()
    told = []
    for changes in ({}, {"objects": (placed_object(), placed_object(number=2))}, {"objects": ()}):
        for more in ({}, {"reason": "the answer has no {…}"}):
            record.frame(0.0)
            record.result(0.0, node_result(**changes | more))
            state = record.describe(0.0, True, "the mug", (None, "no sensor"))
            told.append((state.level, state.message))

    assert told[::2] == [
        ("ok", "following"),
        ("ok", "following 2 objects"),
        ("ok", "nothing that matches the query was found"),
    ]
    assert {*told[1::2]} == {("warn", "no answer: the answer has no {…}")}
