"""The dora adapter on a stand-in for dora: images and text in, masks and JSON out."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("dora", reason="needs the extra 'dora'")

import fake_session
from fake_dora import METADATA, PIXELS, RECORDING_ENDED, STOP, FakeDataflow, image, values, words
from fake_session import FakeMask, FakePolicy, write_canned
from waiting import wait_for
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, UsageError
from wise_edge.images.depth import StreamDepth
from wise_edge.robot import dora
from wise_edge.robot.dora import open_dataflow, serve_dataflow, to_frame
from wise_edge.runtimes.session import Session


@contextmanager
def serving(dataflow: FakeDataflow, policy: FakePolicy | None = None, query: str | None = None) -> Iterator[None]:
    """Serve a dataflow, which the block stops."""
    session = Session(policy or FakePolicy(), FakeMask(), {})
    thread = threading.Thread(target=serve_dataflow, args=(dataflow, session, query))
    thread.start()
    try:
        yield
    finally:
        dataflow.put(STOP)
        thread.join(timeout=30)
    assert not thread.is_alive()


class SlowPolicy(FakePolicy):
    """A policy that says when it works, and waits until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__(self._write)
        self.working, self.free = threading.Event(), threading.Event()

    def _write(self, pixels: np.ndarray, query: str, variant: str) -> str:
        self.working.set()
        self.free.wait(30)
        return write_canned(pixels, query, variant)


def results(dataflow: FakeDataflow) -> list[dict[str, Any]]:
    return [json.loads(data[0]) for data, _ in dataflow.outputs("result")]


def diagnostics(dataflow: FakeDataflow) -> list[dict[str, Any]]:
    return [json.loads(data[0]) for data, _ in dataflow.outputs("diagnostics")]


def test_frames_of_every_encoding() -> None:
    assert np.array_equal(to_frame(image()).image, PIXELS)
    assert np.array_equal(to_frame(image(PIXELS[..., ::-1], encoding="bgr8")).image, PIXELS)
    frame = to_frame(image())
    assert (frame.stamp_ns, frame.frame_id) == (METADATA["stamp_ns"], "camera")
    with pytest.raises(UsageError, match="encoding is yuv420; supported are rgb8, bgr8, jpeg"):
        to_frame(image(encoding="yuv420"))
    with pytest.raises(UsageError, match=r"an image of 31 x 20 \(rgb8\) has 1800 bytes"):
        to_frame(image(width=31))
    with pytest.raises(UsageError, match=r"the input image takes uint8, not float32 \[1800\]"):
        to_frame(image(PIXELS.astype(np.float32) / 255))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": "30"}, "the image's width and height must be integers, not '30' and 20"),
        ({"height": None}, "the image's width and height must be integers, not 30 and None"),
        ({"stamp_ns": 1.7e18}, r"stamp_ns must be an integer of nanoseconds, got float 1\.7e\+18"),
        ({"stamp_ns": "now"}, "stamp_ns must be an integer of nanoseconds, got str 'now'"),
        ({"stamp_ns": -(10**400)}, "stamp_ns must fit into 64 bits"),
        ({"frame_id": 7}, "frame_id must be text, got int 7"),
    ],
)
def test_metadata_of_another_type_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_frame(image(**wrong))


def test_images_of_16_bits_are_scaled_by_the_most_bits_of_the_input() -> None:
    def png(largest: int) -> dict[str, Any]:
        content = io.BytesIO()
        Image.fromarray(np.full((2, 2), largest, np.uint16)).save(content, "PNG")
        return image(np.frombuffer(content.getvalue(), np.uint8), encoding="png")

    depth = StreamDepth()
    assert [to_frame(png(largest), depth).image.max() for largest in (4000, 1000)] == [250, 62]
    assert depth.bits == 12


def test_a_dataflow_is_answered_until_it_stops() -> None:
    dataflow = FakeDataflow()
    with serving(dataflow):
        dataflow.put(words("query", "the ring"), image())
        wait_for(lambda: results(dataflow))
        (received, metadata), (mask, size) = dataflow.outputs("result")[0], dataflow.outputs("mask")[0]
        result = json.loads(received[0])
        assert (result["query"], result["stamp_ns"]) == ("the ring", METADATA["stamp_ns"])
        assert metadata == {"stamp_ns": METADATA["stamp_ns"], "frame_id": "camera"}
        assert (size["width"], size["height"], size["encoding"], size["stale"]) == (30, 20, "mono8", False)
        assert sum(mask) == 255 * 150

        dataflow.put(values("enable", [False]), words("ask", "the star"))
        wait_for(lambda: results(dataflow)[-1]["query"] == "the star")

        def paused() -> bool:  # dora takes its inputs in turn, so a tick may overtake what came before
            dataflow.put(words("tick", ""))
            return any(not state["enabled"] for state in diagnostics(dataflow))

        wait_for(paused)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (image(encoding="yuv420"), "yuv420"),
        (values("enable", ["false"]), "the input enable takes an array of one bool, not string [1]"),
        (values("query", [7]), "the input query takes an array of one str, not int64 [1]"),
        (values("ask", ["the ring", "the star"]), "the input ask takes an array of one str, not string [2]"),
        ({"type": "ERROR", "error": "a buffer was dropped\n\nLocation:\n  here"}, "dora: a buffer was dropped"),
    ],
)
def test_what_is_wrong_is_reported_and_the_dataflow_continues(event: dict[str, Any], message: str) -> None:
    dataflow = FakeDataflow()
    with serving(dataflow):
        dataflow.put(event)
        wait_for(lambda: diagnostics(dataflow))
        dataflow.put(image(), words("ask", "the star"))
        wait_for(lambda: results(dataflow))
    (reported,) = diagnostics(dataflow)
    assert reported["level"] == "error"
    assert message in reported["message"]


def test_a_query_may_arrive_before_the_first_frame() -> None:
    dataflow = FakeDataflow()
    with serving(dataflow):
        dataflow.put(words("ask", "the star"))
        dataflow.put(image())
        wait_for(lambda: results(dataflow))
    assert results(dataflow)[0]["query"] == "the star"
    assert diagnostics(dataflow) == []  # timeouts are no errors


def test_at_the_end_of_a_recording_everything_that_waits_is_answered() -> None:
    dataflow, policy = FakeDataflow(image=1), SlowPolicy()
    with serving(dataflow, policy, "the ring"):
        dataflow.put(image(stamp_ns=1))
        assert policy.working.wait(30)  # an answer is under way
        dataflow.put(*(image(stamp_ns=stamp_ns) for stamp_ns in range(2, 8)))
        dataflow.put(*(words("ask", f"object {number}") for number in range(5)))
        dataflow.put(RECORDING_ENDED)
        policy.free.set()
    asked = [result["query"] for result in results(dataflow) if not result["standing"]]
    assert asked == [f"object {number}" for number in range(5)]
    standing = [result for result in results(dataflow) if result["standing"]]
    assert (standing[-1]["stamp_ns"], standing[-1]["grounded_stamp_ns"]) == (7, 7)
    assert diagnostics(dataflow) == []


def test_answers_that_take_too_long_do_not_keep_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dora, "_FINISH_S", {"MANUAL": 0.05})
    dataflow, policy = FakeDataflow(), SlowPolicy()
    with serving(dataflow, policy):
        dataflow.put(image(), words("ask", "the star"), words("ask", "the ring"))
        assert policy.working.wait(30)
        dataflow.put(STOP)
        wait_for(lambda: diagnostics(dataflow))
        policy.free.set()
    assert diagnostics(dataflow)[0]["message"] == "dora stopped before every query was answered"
    assert "the ring" not in [result["query"] for result in results(dataflow)]


def test_a_failure_of_the_last_answer_is_told() -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("out of memory")

    dataflow = FakeDataflow()
    with serving(dataflow, FakePolicy(fail), "the ring"):
        dataflow.put(image(), RECORDING_ENDED)
    assert "out of memory" in diagnostics(dataflow)[-1]["message"]


def test_one_shot_queries_wait_in_a_bounded_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dora, "_ASKS", 2)
    dataflow, policy = FakeDataflow(), SlowPolicy()
    with serving(dataflow, policy):
        dataflow.put(image(), words("ask", "object 0"))
        assert policy.working.wait(30)
        dataflow.put(words("ask", "object 1"), words("ask", "object 2"))
        wait_for(lambda: diagnostics(dataflow))
        policy.free.set()
    assert "2 one-shot queries already wait" in diagnostics(dataflow)[0]["message"]
    assert [result["query"] for result in results(dataflow)] == ["object 0", "object 1"]


def test_a_dataflow_that_is_gone_ends_the_node() -> None:
    dataflow = FakeDataflow()
    dataflow.put({"type": "ERROR", "error": "fatal event stream error: daemon channel broken"})
    dataflow.die()
    with pytest.raises(DeviceError, match="dora ended the connection"):
        serve_dataflow(dataflow, Session(FakePolicy(), FakeMask(), {}), "the ring")


def test_outside_of_a_dataflow_the_command_says_who_starts_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DORA_NODE_CONFIG", raising=False)
    assert main(["dora"]) == 2
    assert "this is a node of a dataflow, which dora starts: dora run" in capsys.readouterr().err


def test_a_dataflow_that_does_not_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_NODE_CONFIG", "node_id: 7")  # no configuration that dora could have written
    with pytest.raises(DeviceError, match=r"^dora did not start the dataflow: [^\n]+$"):
        open_dataflow()


def test_a_node_is_opened_with_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fake_session.install(monkeypatch)
    monkeypatch.setenv("DORA_NODE_CONFIG", "{}")
    for name in ("open_dataflow", "serve_dataflow"):
        monkeypatch.setattr(f"wise_edge.robot.dora.{name}", lambda *_, **__: None)
    assert main(["dora", "--pixels", "7056"]) == 0
    assert [call["pixels"] for call in opened.calls] == [7056]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", " "], "the query is empty"),
        (["--variant", "short"], "unknown variant 'short'"),
        (["--deadline-ms", "0"], "deadline_ms must be a positive number"),
        (["--variant", "wise-s", "--deadline-ms", "80"], "a deadline chooses the variant"),
        (["--memory"], "this segmenter has no memory of earlier frames; export "),
        (["--rerun", "log.txt"], "ends in .rrd"),
    ],
)
def test_what_is_wrong_is_refused_before_models_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    opened = fake_session.install(monkeypatch)
    monkeypatch.setenv("DORA_NODE_CONFIG", "{}")
    assert main(["dora", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert opened.calls == []
