"""The dora adapter: images and text in, masks and JSON out, with fakes and in a real dataflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from statistics import median
from subprocess import STDOUT
from typing import Any

import numpy as np
import pytest

from fake_session import FakeMask, FakePolicy
from locations import ROOT
from waiting import wait_for
from wise_edge.errors import DeviceError, UsageError
from wise_edge.robot.dora import serve_dataflow, to_frame
from wise_edge.runtimes.session import Session

pa = pytest.importorskip("pyarrow", reason="needs the extra 'dora'")
PIXELS = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
METADATA = {"width": 30, "height": 20, "encoding": "rgb8", "stamp_ns": 1_700_000_000_123_456_789, "frame_id": "camera"}


def image(pixels: np.ndarray = PIXELS, **changes: Any) -> dict[str, Any]:
    return {"type": "INPUT", "id": "image", "value": pa.array(pixels.ravel()), "metadata": METADATA | changes}


def words(name: str, text: str) -> dict[str, Any]:
    return {"type": "INPUT", "id": name, "value": pa.array([text]), "metadata": {}}


class Dataflow:
    """A dataflow whose events come from a test; it reports a timeout as dora 1.1 does (see the example dataflow)."""

    def __init__(self) -> None:
        self.events: Queue[Mapping[str, Any]] = Queue()
        self.sent: list[tuple[str, Any, dict[str, Any]]] = []

    def next(self, timeout: float) -> Mapping[str, Any] | None:
        try:
            return self.events.get(timeout=timeout)
        except Empty:
            return {
                "type": "ERROR",
                "error": "Timeout event stream error: Receiver timed out\n\nLocation:\n    mod.rs:1:2",
            }

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        self.sent.append((output_id, data.to_pylist(), metadata))

    def outputs(self, name: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(data, metadata) for output, data, metadata in self.sent if output == name]


def test_frames_of_every_encoding() -> None:
    assert np.array_equal(to_frame(image()).image, PIXELS)
    assert np.array_equal(to_frame(image(PIXELS[..., ::-1], encoding="bgr8")).image, PIXELS)
    frame = to_frame(image())
    assert (frame.stamp_ns, frame.frame_id) == (METADATA["stamp_ns"], "camera")
    with pytest.raises(UsageError, match="encoding is yuv420; supported are rgb8, bgr8, jpeg"):
        to_frame(image(encoding="yuv420"))
    with pytest.raises(UsageError, match=r"an image of 31 x 20 \(rgb8\) has 1800 bytes"):
        to_frame(image(width=31))


def test_a_dataflow_is_answered_until_it_stops() -> None:
    dataflow = Dataflow()
    session = Session(FakePolicy(), FakeMask(), {})
    serving = threading.Thread(target=serve_dataflow, args=(dataflow, session, None))
    serving.start()
    dataflow.events.put(words("query", "the ring"))
    dataflow.events.put(image())
    wait_for(lambda: dataflow.outputs("result"))
    (received, metadata), (mask, size) = dataflow.outputs("result")[0], dataflow.outputs("mask")[0]
    result = json.loads(received[0])
    assert (result["query"], result["stamp_ns"]) == ("the ring", METADATA["stamp_ns"])
    assert metadata == {"stamp_ns": METADATA["stamp_ns"], "frame_id": "camera"}
    assert (size["width"], size["height"], size["encoding"], size["stale"]) == (30, 20, "mono8", False)
    assert sum(mask) == 255 * 150

    dataflow.events.put({"type": "INPUT", "id": "enable", "value": pa.array([False]), "metadata": {}})
    dataflow.events.put(words("ask", "the star"))
    wait_for(lambda: json.loads(dataflow.outputs("result")[-1][0][0])["query"] == "the star")
    dataflow.events.put(image(encoding="yuv420"))
    wait_for(lambda: dataflow.outputs("diagnostics"))
    assert "yuv420" in json.loads(dataflow.outputs("diagnostics")[-1][0][0])["message"]
    dataflow.events.put(words("tick", ""))
    wait_for(lambda: len(dataflow.outputs("diagnostics")) == 2)
    assert json.loads(dataflow.outputs("diagnostics")[-1][0][0])["enabled"] is False
    dataflow.events.put({"type": "STOP"})
    serving.join(timeout=10)
    assert not serving.is_alive()


def test_a_query_may_arrive_before_the_first_frame() -> None:
    dataflow = Dataflow()
    for event in (words("ask", "the star"), image(), words("tick", "")):
        dataflow.events.put(event)
    serving = threading.Thread(target=serve_dataflow, args=(dataflow, Session(FakePolicy(), FakeMask(), {}), None))
    serving.start()
    wait_for(lambda: dataflow.outputs("result"))
    assert json.loads(dataflow.outputs("result")[0][0][0])["query"] == "the star"
    dataflow.events.put({"type": "ERROR", "error": "a buffer was dropped"})
    wait_for(lambda: len(dataflow.outputs("diagnostics")) == 2)
    assert json.loads(dataflow.outputs("diagnostics")[1][0][0])["message"] == "dora: a buffer was dropped"
    dataflow.events.put({"type": "STOP"})
    serving.join(timeout=10)
    assert not serving.is_alive()


def test_a_dataflow_that_is_gone_ends_the_node() -> None:
    class Gone(Dataflow):
        def next(self, timeout: float) -> Mapping[str, Any] | None:
            return None

    with pytest.raises(DeviceError, match="dora is gone"):
        serve_dataflow(Gone(), Session(FakePolicy(), FakeMask(), {}), "the ring")


def is_complete(sink: Path) -> bool:
    """Whether the example's sink wrote enough results, and a diagnostic without a complaint."""
    lines = sink.read_text().splitlines() if sink.exists() else []
    return sum(line.startswith('{"result"') for line in lines) >= 12 and any('"level": "ok"' in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("dora") is None and not Path(sys.executable).with_name("dora").exists(), reason="no dora"
)
def test_the_example_dataflow_runs(tmp_path: Path) -> None:
    example = ROOT / "examples" / "dora"
    shutil.copytree(example, tmp_path / "dora")
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sink = tmp_path / "results.jsonl"
    command = ["dora", "run", str(tmp_path / "dora" / "dataflow.yml"), "--stop-after", "60"]
    variables = os.environ | {"PATH": paths, "SINK": str(sink)}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=log, stderr=STDOUT) as dataflow,
    ):
        try:
            wait_for(lambda: dataflow.poll() is not None or is_complete(sink), seconds=90)
        finally:
            dataflow.send_signal(signal.SIGINT)
        assert dataflow.wait(timeout=60) == 0, (tmp_path / "log").read_text()[-4000:]
    received = [json.loads(line) for line in sink.read_text().splitlines()]
    results = [line["result"] for line in received if "result" in line]
    assert len(results) >= 10
    assert {result["query"] for result in results} == {"the orange object"}
    assert all((result["mask_px"] > 0) == (result["box"] is not None) for result in results)
    assert median(result["mask_px"] for result in results) > 500
    stamps = [result["stamp_ns"] for result in results]
    assert stamps == sorted(stamps)
    diagnostics = [line["diagnostics"] for line in received if "diagnostics" in line]
    assert {line["level"] for line in diagnostics} <= {"ok", "warn"}, diagnostics
    assert len(diagnostics) < len(results)  # one for each tick
