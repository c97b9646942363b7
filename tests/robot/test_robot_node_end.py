"""The end of a node: what still waits is answered, within a time, or cancelled."""

from __future__ import annotations

import threading

import pytest

from node_harness import NS, STEP_NS, make_frame, running
from waiting import wait_for
from wise_edge.errors import DeviceError, QueryCancelledError


def test_it_answers_the_newest_frame_and_takes_no_further_one() -> None:
    with running() as harness:
        node = harness.node
        node.follow("the square")
        node.put(make_frame(0))
        wait_for(lambda: harness.policy.seen)  # an answer is under way
        for number in (1, 2):
            node.put(make_frame(number))
        harness.allow(2)
        assert node.finish(30)
        last = harness.results[-1]
        assert (last.stamp_ns, last.grounded_stamp_ns) == (NS + 2 * STEP_NS, NS + 2 * STEP_NS)
        node.put(make_frame(3))
        assert node.diagnostics().frames == 3
        assert node.diagnostics().query is None


def test_an_answer_that_takes_too_long_is_left() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.node.put(make_frame(0))
        wait_for(lambda: harness.policy.seen)
        assert not harness.node.finish(0.01)
    assert harness.results == []


def test_nothing_is_left_without_a_standing_query_a_frame_or_if_it_is_disabled() -> None:
    with running() as harness:
        assert harness.node.finish(0)
    with running() as harness:
        harness.node.follow("the square")
        assert harness.node.finish(30)
    with running() as harness:
        harness.node.follow("the square")
        harness.node.enable(False)
        harness.node.put(make_frame(0))
        assert harness.node.finish(0)
    assert harness.results == []


def test_a_failure_at_the_end_is_not_tried_again() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.allow(word="the engine is lost")
        harness.node.put(make_frame(0))
        assert harness.node.finish(30)
        assert harness.node.diagnostics().message == "the engine is lost"


def test_a_one_shot_query_waits_for_no_frame_after_the_end() -> None:
    with running() as harness:
        harness.node.finish(0)
        with pytest.raises(DeviceError, match="no frame came before the camera ended"):
            harness.node.ask("it", timeout_s=60)


def test_closing_cancels_a_one_shot_query() -> None:
    failures: list[Exception] = []

    def ask() -> None:
        try:
            harness.node.ask("it")
        except Exception as error:
            failures.append(error)

    with running() as harness:
        harness.node.put(make_frame(0))
        asker = threading.Thread(target=ask)
        asker.start()
        wait_for(lambda: harness.policy.seen)
    asker.join(timeout=30)
    assert [type(failure) for failure in failures] == [QueryCancelledError]
