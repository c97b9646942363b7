"""The dora adapter on dora itself: what the stand-in copies, the end of a recording, and the example."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from textwrap import dedent
from threading import Thread

import pytest

pytest.importorskip("dora", reason="needs the extra 'dora'")

from fake_dora import RECORDING_ENDED, FakeDataflow, listen, values
from locations import ROOT
from waiting import wait_for

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
pytestmark = pytest.mark.skipif(shutil.which("dora", path=PATH) is None, reason="needs dora-rs-cli")

# A recording: it sends a first image, then more than any queue holds, and ends.
SOURCE = """
    import os, time
    import pyarrow as pa
    from dora import Node

    node = Node()
    time.sleep(0.3)
    node.send_output("image", pa.array([os.getpid()]))
    time.sleep(0.3)
    for number in range(5):
        node.send_output("image", pa.array([number]))
    for number in range(13):
        node.send_output("ask", pa.array([number]))
"""
LISTENER = """
    import json, os, sys, time
    from dora import Node
    from fake_dora import listen

    def pause(event):
        source = event["value"][0].as_py()
        while os.path.exists(f"/proc/{source}"):
            time.sleep(0.05)
        time.sleep(0.5)

    with open("lines.json", "w") as file:
        json.dump(listen(Node(), pause), file)
"""
FLOW = """
    nodes:
      - id: source
        path: source.py
        outputs: [image, ask]
      - id: listener
        path: node.py
        inputs:
          image: {source: source/image, queue_size: 1}
          ask: source/ask
"""

# A recording that asks for more than there is time for while it runs.
QUERIES = """
    import time
    import pyarrow as pa
    from dora import Node
    from fake_dora import image

    node = Node()
    for stamp_ns in range(1, 31):
        if stamp_ns == 5:
            for number in range(4):
                node.send_output("ask", pa.array([f"object {number}"]))
        event = image(stamp_ns=stamp_ns)
        node.send_output("image", event["value"], event["metadata"])
        time.sleep(0.02)
"""
SLOW = """
    import time
    from fake_session import FakeMask, FakePolicy, write_canned
    from wise_edge.robot.dora import open_dataflow, serve_dataflow
    from wise_edge.runtimes.session import Session

    def write(*asked):
        time.sleep(0.2)
        return write_canned(*asked)

    serve_dataflow(open_dataflow(), Session(FakePolicy(write), FakeMask(), {}), "the ring")
"""
SINK = """
    import json
    from dora import Node

    with open("received.jsonl", "w") as file:
        for event in Node():
            if event["type"] == "INPUT" and event["id"] != "mask":
                file.write(json.dumps([event["id"], json.loads(event["value"][0].as_py())]) + "\\n")
"""
ANSWERED = """
    nodes:
      - id: source
        path: source.py
        outputs: [image, ask]
      - id: wise-edge
        path: node.py
        inputs:
          image: {source: source/image, queue_size: 1}
          ask: source/ask
        outputs: [mask, result, diagnostics]
      - id: sink
        path: sink.py
        inputs:
          mask: wise-edge/mask
          result: {source: wise-edge/result, queue_size: 100}
          diagnostics: {source: wise-edge/diagnostics, queue_size: 100}
"""


def run_dataflow(folder: Path, flow: str, **programs: str) -> None:
    """Write a dataflow and its programs and run it until it ends by itself."""
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(dedent(program))
    (folder / "flow.yml").write_text(dedent(flow))
    variables = os.environ | {"PATH": PATH, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = ["dora", "run", "flow.yml", "--stop-after", "50"]
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_the_stand_in_hands_out_events_as_dora_does(tmp_path: Path) -> None:
    run_dataflow(tmp_path, FLOW, source=SOURCE, node=LISTENER)
    real = json.loads((tmp_path / "lines.json").read_text())

    fake = FakeDataflow(image=1)

    def pause(_: object) -> None:
        fake.put(*(values("image", [number]) for number in range(5)))
        fake.put(*(values("ask", [number]) for number in range(13)))
        fake.put({"type": "INPUT_CLOSED", "id": "image"}, {"type": "INPUT_CLOSED", "id": "ask"}, RECORDING_ENDED)

    listened: list[str] = []
    listener = Thread(target=lambda: listened.extend(listen(fake, pause)))
    listener.start()
    listener.join(0.2)  # as in the recording, nothing comes at first
    fake.put(values("image", [0]))
    listener.join(30)

    real[1] = "INPUT image 0"  # there, it names the process
    closed = [line for line in real if line.startswith("INPUT_CLOSED")]
    assert sorted(closed) == ["INPUT_CLOSED ask", "INPUT_CLOSED image"]  # in either order
    assert [line for line in listened if line not in closed] == [line for line in real if line not in closed]
    assert listened[:2] == ["ERROR Timeout event stream error: Receiver timed out", "INPUT image 0"]
    assert listened[4:7] == ["STOP ALL_INPUTS_CLOSED", "INPUT ask 3", "INPUT image 4"]


def test_at_the_end_of_a_recording_everything_that_waits_is_answered(tmp_path: Path) -> None:
    run_dataflow(tmp_path, ANSWERED, source=QUERIES, node=SLOW, sink=SINK)
    received = [json.loads(line) for line in (tmp_path / "received.jsonl").read_text().splitlines()]
    results = [content for name, content in received if name == "result"]
    assert Counter(result["query"] for result in results if not result["standing"]) == Counter(
        f"object {number}" for number in range(4)
    )
    last = max((result for result in results if result["standing"]), key=lambda result: result["grounded_stamp_ns"])
    assert (last["stamp_ns"], last["grounded_stamp_ns"]) == (30, 30)
    assert [content for name, content in received if name == "diagnostics"] == []


def is_complete(sink: Path) -> bool:
    """Whether the example's sink wrote enough results, and a diagnostic without a complaint."""
    lines = sink.read_text().splitlines() if sink.exists() else []
    return sum(line.startswith('{"result"') for line in lines) >= 12 and any('"level": "ok"' in line for line in lines)


@pytest.mark.slow
def test_the_example_dataflow_runs_as_documented(tmp_path: Path) -> None:
    example, checkout = Path("examples", "dora"), tmp_path / "checkout"
    shutil.copytree(ROOT / example, checkout / example, ignore=shutil.ignore_patterns("out"))
    shutil.copy(ROOT / "pyproject.toml", checkout)  # for which uv would make an environment
    sink = checkout / example / "out" / "results.jsonl"
    documented = "UV_NO_PROJECT=1 dora run examples/dora/dataflow.yml"
    for page, prompt in (("docs/robot.md", "$ "), ("examples/dora/dataflow.yml", "#     ")):
        assert f"\n{prompt}{documented} --stop-after 20\n" in (ROOT / page).read_text()
    command = ["env", *documented.split(), "--stop-after", "60"]
    variables = os.environ | {"PATH": PATH, "PYTHONPATH": str(ROOT)}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(command, env=variables, cwd=checkout, stdout=log, stderr=subprocess.STDOUT) as dataflow,
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
    assert {path.name for path in checkout.iterdir()} == {"examples", "pyproject.toml"}
    assert {path.name for path in (checkout / example).iterdir()} == {"camera.py", "dataflow.yml", "out", "sink.py"}
    assert "/examples/dora/out/" in (ROOT / ".gitignore").read_text().splitlines()
