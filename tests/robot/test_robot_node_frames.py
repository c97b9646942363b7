"""Which of a node's frames get a result: the newest wins, one waits at most, and drops are counted."""

from __future__ import annotations

import json
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest

from node_harness import NS, STEP_NS, following, make_frame, running
from waiting import wait_for
from wise_edge.robot.frames import Frame


def test_results_carry_their_own_frames_stamp_and_frame_id_to_the_last_digit() -> None:
    with following() as harness:
        harness.node.put(make_frame(1, left=14))
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
            harness.node.put(make_frame(number))
            if number == 0:
                wait_for(lambda: harness.policy.seen)
        harness.allow(3)
        wait_for(lambda: harness.results and harness.results[-1].stamp_ns == NS + 39 * STEP_NS)

    state = harness.node.diagnostics()
    assert state.frames == 40
    assert state.dropped == sum(result.dropped for result in harness.results) >= 35


def test_one_frame_waits_at_most_and_older_ones_are_gone() -> None:
    with running() as harness:
        harness.node.follow("the square")
        alive: list[weakref.ref[Frame]] = []
        for number in range(40):
            new = make_frame(number)
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
            harness.node.put(make_frame(number))
        harness.node.follow("the square")
        harness.allow()
        harness.wait(1)
        harness.node.enable(False)
        for number in range(5, 10):
            harness.node.put(make_frame(number))
        harness.node.enable(True)
        harness.allow(2)  # the query that was canceled may take one more
        harness.wait(2)
    assert [(result.stamp_ns - NS) // STEP_NS for result in harness.results] == [4, 9]
    assert harness.node.diagnostics().dropped == 0


def test_frames_that_came_while_a_query_failed_are_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.robot.node._RETRY_S", 0.05)
    with running() as harness:
        harness.node.follow("the square")
        harness.node.put(make_frame(0))
        wait_for(lambda: harness.policy.seen)
        for number in range(1, 6):
            harness.node.put(make_frame(number))
        harness.allow(word="the engine is lost")
        wait_for(lambda: len(harness.policy.seen) == 2)
        harness.allow()
        harness.wait(1)
    assert (harness.results[0].stamp_ns, harness.results[0].dropped) == (NS + 5 * STEP_NS, 5)


def test_frames_are_observed_with_their_results() -> None:
    seen: list[tuple[int, str]] = []
    with running(observe=lambda frame, result: seen.append((frame.stamp_ns, result.query))) as harness:
        harness.node.follow("the square")
        harness.allow(2)
        harness.node.put(make_frame(0))
        harness.wait(1)
        wait_for(lambda: seen)
        harness.node.ask("the star")
    assert seen == [(NS, "the square"), (NS, "the star")]


def test_a_mask_without_a_pixel_is_said_and_has_no_score() -> None:
    with following() as harness:
        harness.wait(1)
    shown = harness.results[0]
    unseen = replace(shown.objects[0], mask=np.zeros_like(shown.objects[0].mask), score=None)
    hidden = replace(shown, objects=(unseen,))

    assert (shown.to_facts()["mask_px"], shown.to_facts()["mask_reason"]) == (400, None)
    assert hidden.to_facts()["mask_px"] == 0
    assert "no pixel" in hidden.to_dict()["mask_reason"]
