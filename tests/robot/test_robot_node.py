"""The node: each result belongs to its own frame, the newest frame wins, and failures do not end it."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tracking_fakes import SeeingMask, SlowPolicy, make, square_image
from waiting import wait_for
from wise_edge.errors import DeviceError, UsageError
from wise_edge.power.gauge import PowerGauge
from wise_edge.power.sources import PowerSource
from wise_edge.robot.frames import Frame, Intrinsics, find_place
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

NS = 1_700_000_000_123_456_789  # a stamp that no float64 in seconds holds
STEP_NS = 33_333_333


def frame(number: int, left: int = 10) -> Frame:
    return Frame.of(square_image(left), NS + number * STEP_NS, "camera_color_optical_frame")


class Harness:
    """A node whose policy answers when a test allows it."""

    def __init__(self, **options: object) -> None:
        self.session, self.policy = make()
        self.results: list[NodeResult] = []
        self.node = Node(self.session, self.results.append, **options)  # type: ignore[arg-type]

    def allow(self, times: int = 1, word: str = "answer") -> None:
        for _ in range(times):
            self.policy.allowed.put(word)

    def wait(self, count: int) -> None:
        wait_for(lambda: len(self.results) >= count)


@contextmanager
def running(**options: object) -> Iterator[Harness]:
    harness = Harness(**options)
    with harness.node:
        yield harness


def test_results_carry_their_own_frames_stamp_and_frame_id_to_the_last_digit() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(frame(0))
        harness.wait(1)
        harness.node.put(frame(1, left=14))
        harness.wait(2)

    first, second = harness.results
    assert (first.stamp_ns, first.frame_id) == (NS, "camera_color_optical_frame")
    assert (first.stale, first.age_ms, first.box) == (False, 0.0, (10, 40, 30, 60))
    assert (second.stamp_ns, second.grounded_stamp_ns) == (NS + STEP_NS, NS)
    assert second.stale
    assert second.age_ms == pytest.approx(STEP_NS / 1e6)
    assert second.box == (14, 40, 34, 60)
    assert (second.query, second.standing, second.dropped) == ("the square", True, 0)
    assert second.latency_ms["vision_encode"] == 20.0
    assert json.dumps(second.to_dict())
    assert second.to_dict()["mask"]["size"] == [112, 112]


def test_frames_that_come_while_the_policy_thinks_are_dropped_and_counted() -> None:
    with running() as harness:
        harness.node.follow("the square")
        for number in range(40):
            harness.node.put(frame(number))
            if number == 0:
                wait_for(lambda: harness.policy.seen)
        harness.allow(3)
        wait_for(lambda: harness.results and harness.results[-1].stamp_ns == NS + 39 * STEP_NS)

    told = harness.node.diagnostics()
    assert told.frames == 40
    assert told.dropped == sum(result.dropped for result in harness.results) >= 35


def test_one_frame_waits_at_most_and_older_ones_are_gone() -> None:
    with running() as harness:
        harness.node.follow("the square")
        alive: list[weakref.ref[Frame]] = []
        for number in range(40):
            new = frame(number)
            alive.append(weakref.ref(new))
            harness.node.put(new)
            del new
            if number == 0:
                wait_for(lambda: harness.policy.seen)
            held = [place for place, reference in enumerate(alive) if reference() is not None]
            assert (held[0], held[-1]) == (0, number)  # the policy's, and the newest, which waits
            assert len(held) <= 3  # the segmenter has one in hand
        assert "frames" not in {thread.name for thread in threading.enumerate()}  # nobody copies to a second queue
        harness.allow(2)
        wait_for(lambda: harness.results and harness.results[-1].stamp_ns == NS + 39 * STEP_NS)
        wait_for(lambda: sum(reference() is not None for reference in alive) == 1)


def test_frames_from_before_a_query_or_while_disabled_are_not_drops() -> None:
    with running() as harness:
        for number in range(5):
            harness.node.put(frame(number))
        harness.node.follow("the square")
        harness.allow()
        harness.wait(1)
        harness.node.enable(False)
        for number in range(5, 10):
            harness.node.put(frame(number))
        harness.node.enable(True)
        harness.allow(2)  # the query that was canceled may take one more
        harness.wait(2)
    assert [(result.stamp_ns - NS) // STEP_NS for result in harness.results] == [4, 9]
    assert harness.node.diagnostics().dropped == 0


def test_frames_that_came_while_a_query_failed_are_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.robot.node._RETRY_S", 0.05)
    with running() as harness:
        harness.node.follow("the square")
        harness.node.put(frame(0))
        wait_for(lambda: harness.policy.seen)
        for number in range(1, 6):
            harness.node.put(frame(number))
        harness.allow(word="the engine is lost")
        wait_for(lambda: len(harness.policy.seen) == 2)
        harness.allow()
        harness.wait(1)
    assert (harness.results[0].stamp_ns, harness.results[0].dropped) == (NS + 5 * STEP_NS, 5)


def test_a_new_standing_query_begins_with_the_newest_frame() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(frame(0))
        harness.wait(1)
        harness.node.follow("the other square")
        harness.allow(2)
        wait_for(lambda: harness.results[-1].query == "the other square")
        assert (harness.results[-1].stamp_ns, harness.results[-1].dropped) == (NS, 0)
        harness.node.follow(None)
        wait_for(lambda: "grounding" not in {thread.name for thread in threading.enumerate()})
        count, seen = len(harness.results), len(harness.policy.seen)
        harness.node.put(frame(1))  # nobody is left to take it
    assert (len(harness.results), len(harness.policy.seen)) == (count, seen)


def test_disabled_it_leaves_the_standing_query_and_answers_one_shots() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.node.enable(False)
        harness.node.put(frame(0))
        harness.allow()
        answer = harness.node.ask("the square")
        assert (answer.standing, answer.stamp_ns, answer.box) == (False, NS, (10, 40, 30, 60))
        assert not answer.stale
        assert harness.results == []
        assert not harness.node.diagnostics().enabled

        harness.allow()
        harness.node.enable(True)
        harness.wait(1)
        assert harness.results[0].query == "the square"


def test_one_shots_are_answered_next_to_a_standing_query() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.node.put(frame(0))
        harness.allow(4)
        answers: list[NodeResult] = []
        askers = [threading.Thread(target=lambda: answers.append(harness.node.ask("it"))) for _ in range(2)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(timeout=10)
        assert [answer.query for answer in answers] == ["it", "it"]
        harness.wait(1)


def test_without_a_frame_or_closed_a_one_shot_says_so() -> None:
    with running() as harness:
        with pytest.raises(DeviceError, match=r"no frame came within 0\.05 s; check that the camera publishes"):
            harness.node.ask("it", timeout_s=0.05)
        with pytest.raises(UsageError, match="empty"):
            harness.node.follow("  ")
        node = harness.node
    with pytest.raises(DeviceError, match="the node is closed"):
        node.ask("it")


def test_a_failed_query_is_reported_and_the_next_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.robot.node._RETRY_S", 0.05)
    with running() as harness:
        harness.node.follow("the square")
        harness.allow(word="the engine is lost")
        harness.node.put(frame(0))
        wait_for(lambda: harness.node.diagnostics().level == "error")
        told = harness.node.diagnostics()
        assert (told.message, told.failures) == ("the engine is lost", 1)
        harness.allow(2)
        harness.node.put(frame(1))
        harness.wait(1)
        assert harness.node.diagnostics().level == "ok"


def test_a_result_that_cannot_be_published_does_not_end_the_node() -> None:
    session, policy = make()
    taken: list[NodeResult] = []

    def publish(result: NodeResult) -> None:
        taken.append(result)
        if len(taken) == 1:
            raise OSError("the topic is gone")

    with Node(session, publish) as node:
        node.follow("the square")
        policy.allowed.put("answer")
        node.put(frame(0))
        wait_for(lambda: node.diagnostics().level == "error")
        assert "could not be published: the topic is gone" in node.diagnostics().message
        node.put(frame(1))
        wait_for(lambda: len(taken) == 2)
        assert node.diagnostics().level == "ok"


def test_closing_cancels_the_query_that_is_being_answered() -> None:
    harness = Harness()
    with harness.node:
        harness.node.follow("the square")
        harness.node.put(frame(0))
        wait_for(lambda: harness.policy.seen)
    assert harness.results == []
    assert {"node", "grounding"}.isdisjoint(thread.name for thread in threading.enumerate())


def test_diagnostics_report_rates_and_missing_frames_or_results() -> None:
    now = [100.0]
    harness = Harness(clock=lambda: now[0])
    node = harness.node
    assert (node.diagnostics().level, node.diagnostics().message) == ("warn", "no frame came in the last 5 s")
    for number in range(60):
        now[0] += 0.1
        node.put(frame(number))
    told = node.diagnostics()
    assert told.frames_hz == pytest.approx(10.0, abs=0.3)
    assert (told.level, told.message, told.delay_ms_p50) == ("ok", "idle", None)
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


def test_frames_are_observed_with_their_results() -> None:
    seen: list[tuple[int, str]] = []
    with running(observe=lambda frame, result: seen.append((frame.stamp_ns, result.query))) as harness:
        harness.node.follow("the square")
        harness.allow(2)
        harness.node.put(frame(0))
        harness.wait(1)
        wait_for(lambda: seen)
        harness.node.ask("the star")
    assert seen == [(NS, "the square"), (NS, "the star")]


def test_an_engines_own_error_is_reported_and_the_node_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.robot.node._RETRY_S", 0.05)

    def lose(*about: object) -> None:
        raise RuntimeError("CUDA error 700")

    with running() as harness, monkeypatch.context() as patch:
        patch.setattr(harness.policy, "generate", lose)
        harness.node.follow("the square")
        harness.node.put(frame(0))
        wait_for(lambda: harness.node.diagnostics().level == "error")
        assert harness.node.diagnostics().message == "RuntimeError: CUDA error 700"
        patch.undo()
        harness.allow(3)
        harness.node.put(frame(1))
        harness.wait(1)
        assert harness.node.diagnostics().level == "ok"


def test_a_deadline_and_a_variant_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="a deadline chooses the variant"):
        Node(Session(SlowPolicy(), SeeingMask(), {}), print, variant="wise-s", deadline_ms=80)
    with running(deadline_ms=500.0) as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(frame(0))
        harness.wait(1)
    assert harness.results[0].variant == "answer"  # nothing was measured yet


CAMERA = Intrinsics(500.0, 500.0, 56.0, 56.0)


def deep(depth_m: np.ndarray) -> Frame:
    return replace(frame(0), depth_m=depth_m.astype(np.float32), intrinsics=CAMERA)


def test_depth_and_intrinsics_give_a_place_in_the_cameras_frame() -> None:
    mask = square_image(66, 20)[..., 0] > 0  # columns 66 to 85, rows 40 to 59
    place = find_place(mask, deep(np.full((112, 112), 2.0)))

    assert place is not None
    assert place.center_m == pytest.approx(((75.5 - 56) * 2 / 500, (49.5 - 56) * 2 / 500, 2.0))
    assert place.extent_m == pytest.approx((0.9 * 19 * 2 / 500, 0.9 * 19 * 2 / 500, 0.0), rel=0.1)
    assert place.points == 400


def test_pixels_without_depth_and_what_is_behind_do_not_count() -> None:
    mask = square_image(66, 20)[..., 0] > 0
    depth = np.full((112, 112), 2.0)
    depth[40:42, 66:72] = 9.0  # flying pixels at an edge: 12 of 320
    depth[50:52, 66:86] = np.nan
    depth[52:54, 66:86] = 0.0
    place = find_place(mask, deep(depth))
    assert place is not None
    assert place.center_m[2] == pytest.approx(2.0, abs=0.02)
    assert place.points == 320

    assert find_place(mask, deep(np.zeros((112, 112)))) is None
    assert find_place(mask, frame(0)) is None


def test_impossible_cameras_are_rejected() -> None:
    with pytest.raises(UsageError, match="register the depth image to the color camera"):
        Frame.of(square_image(10), NS, depth_m=np.zeros((4, 4), np.float32))
    with pytest.raises(UsageError, match="focal lengths must be positive"):
        Intrinsics(0.0, 500.0, 1.0, 1.0)


def test_results_have_the_place_of_their_mask() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(deep(np.full((112, 112), 2.0)))
        harness.wait(1)
    place = harness.results[0].place
    assert place is not None
    assert place.center_m[2] == pytest.approx(2.0)
    assert harness.results[0].to_dict()["place"]["points"] == 400
