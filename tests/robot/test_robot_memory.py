"""Nodes with a memory: what is hidden is in the results, in the diagnostics and in the JSON."""

from __future__ import annotations

import json

import pytest

import fake_rclpy
from remembering_fakes import NamingPolicy, draw, make
from waiting import wait_for
from wise_edge.errors import UsageError
from wise_edge.files.documents import to_json
from wise_edge.robot import dora
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.robot.ros2 import make_node
from wise_edge.runtimes.session import Session

NS = 1_700_000_000_123_456_789


def test_what_is_hidden_is_told_and_keeps_its_number() -> None:
    session, _, _ = make()
    results: list[NodeResult] = []
    told = []
    with Node(session, results.append, memory=True) as node:
        node.follow("the square")
        for place, squares in enumerate(({200: (10, 50)}, {}, {200: (60, 50)})):
            node.put(Frame.of(draw(squares), NS + place * 100_000_000, "camera"))
            wait_for(lambda place=place: len(results) > place)
            told.append(node.diagnostics().message)

    assert told == ["following", "what matches the query is hidden", "following"]
    assert [[item.number for item in found.objects] for found in results] == [[1], [], [1]]
    assert [found.hidden and found.hidden[0].number for found in results] == [(), 1, ()]
    assert results[1].mask_reason == "what matches the query is hidden"
    facts = json.loads(to_json(results[1].to_facts()))
    assert facts["hidden"] == [
        {
            "number": 1,
            "box": [10, 50, 30, 70],
            "label": "square",
            "object_score": -5.0,
            "hidden_s": pytest.approx(0.1, abs=1e-5),
        }
    ]
    assert NodeResult.from_record(json.loads(to_json(results[1].to_record()))).hidden == results[1].hidden


def test_without_a_memory_nothing_is_said_of_what_is_hidden() -> None:
    session, _, _ = make()
    results: list[NodeResult] = []
    with Node(session, results.append) as node:
        node.follow("the square")
        node.put(Frame.of(draw({200: (10, 50)}), NS, "camera"))
        wait_for(lambda: results)
    assert json.loads(to_json(results[0].to_facts()))["hidden"] is None


def test_a_segmenter_without_memory_is_refused_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = Session.from_bundle(mask_backend="onnx", threads=1)
    with pytest.raises(UsageError, match="this segmenter has no memory"):
        Node(embedded, print, memory=True)
    fake_rclpy.install(monkeypatch, memory=True)
    node = make_node(lambda bundle, **options: Session(NamingPolicy(), embedded.mask, {}))
    assert node.trigger_configure() == "success"
    assert node.trigger_activate() == "failure"
    assert node.logged[0].startswith("this segmenter has no memory")
    node.wise_edge.close()


def test_dora_passes_the_option_on(monkeypatch: pytest.MonkeyPatch) -> None:
    session, _, _ = make()
    asked: list[bool] = []

    def refuse(*_: object, memory: bool, **__: object) -> Node:
        asked.append(memory)
        raise UsageError("enough")

    monkeypatch.setattr(dora, "Node", refuse)
    for memory in (False, True):
        with pytest.raises(UsageError, match="enough"):
            dora.serve_dataflow(None, session, None, memory=memory)  # type: ignore[arg-type]
    assert asked == [False, True]
