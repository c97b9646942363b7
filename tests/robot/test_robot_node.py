"""The node: standing and one-shot queries, and failures that do not end it."""

from __future__ import annotations

import threading

import pytest

from node_harness import NS, Harness, following, make_frame, running
from tracking_fakes import SeeingMask, SlowPolicy, make
from waiting import wait_for
from wise_edge.errors import DeviceError, UsageError
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session


def test_a_new_standing_query_begins_with_the_newest_frame() -> None:
    with following() as harness:
        harness.node.follow("the other square")
        harness.allow(2)
        wait_for(lambda: harness.results[-1].query == "the other square")
        assert (harness.results[-1].stamp_ns, harness.results[-1].dropped) == (NS, 0)
        harness.node.follow(None)
        wait_for(lambda: "grounding" not in {thread.name for thread in threading.enumerate()})
        count, seen = len(harness.results), len(harness.policy.seen)
        harness.node.put(make_frame(1))  # nobody is left to take it
    assert (len(harness.results), len(harness.policy.seen)) == (count, seen)


def test_disabled_it_leaves_the_standing_query_and_answers_one_shots() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.node.enable(False)
        harness.node.put(make_frame(0))
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
        harness.node.put(make_frame(0))
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
        harness.node.put(make_frame(0))
        wait_for(lambda: harness.node.diagnostics().level == "error")
        state = harness.node.diagnostics()
        assert (state.message, state.failures) == ("the engine is lost", 1)
        harness.allow(2)
        harness.node.put(make_frame(1))
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
        node.put(make_frame(0))
        wait_for(lambda: node.diagnostics().level == "error")
        assert "could not be published: the topic is gone" in node.diagnostics().message
        node.put(make_frame(1))
        wait_for(lambda: len(taken) == 2)
        assert node.diagnostics().level == "ok"


def test_closing_cancels_the_query_that_is_being_answered() -> None:
    harness = Harness()
    with harness.node:
        harness.node.follow("the square")
        harness.node.put(make_frame(0))
        wait_for(lambda: harness.policy.seen)
    assert harness.results == []
    assert {"node", "grounding"}.isdisjoint(thread.name for thread in threading.enumerate())


def test_an_engines_own_error_is_reported_and_the_node_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.robot.node._RETRY_S", 0.05)

    def lose(*about: object) -> None:
        raise RuntimeError("CUDA error 700")

    with running() as harness, monkeypatch.context() as patch:
        patch.setattr(harness.policy, "generate", lose)
        harness.node.follow("the square")
        harness.node.put(make_frame(0))
        wait_for(lambda: harness.node.diagnostics().level == "error")
        assert harness.node.diagnostics().message == "RuntimeError: CUDA error 700"
        patch.undo()
        harness.allow(3)
        harness.node.put(make_frame(1))
        harness.wait(1)
        assert harness.node.diagnostics().level == "ok"


def test_a_deadline_and_a_variant_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="a deadline chooses the variant"):
        Node(Session(SlowPolicy(), SeeingMask(), {}), print, variant="wise-s", deadline_ms=80)
    with following(deadline_ms=500.0) as harness:
        assert harness.results[0].variant == "answer"  # nothing was measured yet
