"""Bags: every image gets one result with its own stamp, whatever the storage, even after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

import fake_session
from bag_writing import BEGIN_NS, STEP_NS, TOPIC, read_bag, write_bag
from fake_session import FakeMask, FakePolicy
from wise_edge.cli.main import main
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.power.gauge import PowerGauge
from wise_edge.power.sources import PowerSource
from wise_edge.robot.bag_files import FOUND, MASKS, TOLD
from wise_edge.robot.bags import process_bag
from wise_edge.robot.messages import stamp_of
from wise_edge.robot.recording.writer import RecordingWriter
from wise_edge.runtimes.session import Session


def session() -> Session:
    return Session(FakePolicy(), FakeMask(), {})


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_results_are_written_next_to_the_images_with_their_stamps(storage: str, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", 5, storage=storage)
    report = process_bag(session(), bag, None, "the ring", tmp_path / "out", storage=storage.lower())

    assert (report.frames, report.found, report.reused) == (5, 5, 0)
    before, after = read_bag(bag), read_bag(tmp_path / "out")
    assert set(after) == {TOPIC, "/chatter", MASKS, FOUND, TOLD}
    for topic in (TOPIC, "/chatter"):
        assert [time_ns for time_ns, _ in after[topic]] == [time_ns for time_ns, _ in before[topic]]
    stamps = [stamp_of(message.header) for _, message in before[TOPIC]]
    assert stamps == [BEGIN_NS + number * STEP_NS for number in range(5)]
    for topic in (MASKS, FOUND):
        assert [stamp_of(message.header) for _, message in after[topic]] == stamps
        assert [time_ns for time_ns, _ in after[topic]] == [time_ns for time_ns, _ in before[TOPIC]]
        assert {message.header.frame_id for _, message in after[topic]} == {"camera"}
    mask = after[MASKS][0][1]
    assert (mask.height, mask.width, mask.encoding) == (20, 30, "mono8")
    assert mask.data.sum() == 255 * 150
    told = json.loads(after[TOLD][0][1].data)
    assert (told["query"], told["stamp_ns"], told["box"]) == ("the ring", BEGIN_NS, [8, 5, 23, 15])
    assert told["rationale"] == fake_session.RATIONALE
    assert {file.name for file in tmp_path.iterdir()} == {"in", "out"}  # no log and nothing temporary
    name = "out.mcap" if storage == "MCAP" else "out.db3"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"metadata.yaml", name}


def test_the_results_alone(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", 3)
    process_bag(session(), bag, TOPIC, "the ring", tmp_path / "out", copy=False)
    assert set(read_bag(tmp_path / "out")) == {MASKS, FOUND, TOLD}


def test_a_ros_1_bag(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    with Writer1(tmp_path / "in.bag") as writer:
        camera = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=store)
        for number in range(3):
            stamp = types["builtin_interfaces/msg/Time"](sec=100 + number, nanosec=7)
            header = types["std_msgs/msg/Header"](seq=number, stamp=stamp, frame_id="old")
            message = types["sensor_msgs/msg/Image"](
                header=header,
                height=20,
                width=30,
                encoding="bgr8",
                is_bigendian=0,
                step=90,
                data=np.zeros(1800, np.uint8),
            )
            data = store.serialize_ros1(message, "sensor_msgs/msg/Image")
            writer.write(camera, (100 + number) * 10**9 + 7, data)
    report = process_bag(session(), tmp_path / "in.bag", None, "the ring", tmp_path / "out")

    assert report.frames == 3
    after = read_bag(tmp_path / "out")
    assert set(after) == {MASKS, FOUND, TOLD}
    assert [stamp_of(message.header) for _, message in after[MASKS]] == [(100 + n) * 10**9 + 7 for n in range(3)]


class Failing(FakePolicy):
    """Fails at the third image, once."""

    failed = False

    def encode(self, image: np.ndarray, pixels: int | None = None) -> fake_session.FakeImage:
        if image[0, 0, 0] == 2 and not self.failed:
            self.failed = True
            raise WiseEdgeError("the engine is lost")
        return super().encode(image, pixels)


def test_a_failed_run_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    bag, out = write_bag(tmp_path / "in", 6), tmp_path / "out"
    policy = Failing()
    with pytest.raises(WiseEdgeError, match="the engine is lost"):
        process_bag(Session(policy, FakeMask(), {}), bag, None, "the ring", out)
    assert not out.exists()
    with pytest.raises(UsageError, match="continue it with --resume"):
        process_bag(session(), bag, None, "the ring", out)
    with pytest.raises(UsageError, match=r"made with other settings \(query the ring\)"):
        process_bag(session(), bag, None, "the star", out, resume=True)

    log = tmp_path / "out.log"
    complete = log.read_bytes()
    for damage in (b"{}\n", b"[]\n", b"3\n"):
        log.write_bytes(complete + damage)
        with pytest.raises(UsageError, match=r"out.log, line 4, was not written by 'wise-edge bag'"):
            process_bag(session(), bag, None, "the ring", out, resume=True)
    log.write_bytes(complete + b'{"torn')
    encoded = policy.encoded
    report = process_bag(Session(policy, FakeMask(), {}), bag, None, "the ring", out, resume=True)
    assert (report.frames, report.reused) == (6, 2)
    assert policy.encoded - encoded == 4
    assert len(read_bag(out)[MASKS]) == 6


def test_invalid_input_is_rejected_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = write_bag(tmp_path / "in", 2)
    (tmp_path / "no.mcap").write_bytes(b"nothing")
    for arguments, line in (
        ((tmp_path / "none", None, tmp_path / "out"), "does not exist; pass a rosbag2 folder"),
        ((tmp_path / "no.mcap", None, tmp_path / "out"), "cannot be read as a bag"),
        ((bag, "/depth", tmp_path / "out"), f"has no images on /depth; its topics with images: {TOPIC}"),
        ((bag, None, bag), "exists; choose another folder"),
    ):
        source, topic, out = arguments
        with pytest.raises(UsageError) as refused:
            process_bag(session(), source, topic, "the ring", out)
        assert line in str(refused.value)
    with pytest.raises(UsageError, match=f"{TOPIC} has no messages"):
        process_bag(session(), write_bag(tmp_path / "empty", 0), None, "the ring", tmp_path / "out")
    assert not (tmp_path / "out.log").exists()
    with pytest.raises(UsageError, match="unknown storage 'tape'"):
        process_bag(session(), bag, None, "the ring", tmp_path / "out", storage="tape")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordingWriter, "write", fail)
    with pytest.raises(WiseEdgeError, match=r"out: No space left .*; the results are kept, so add --resume"):
        process_bag(session(), bag, None, "the ring", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.log").exists()  # the results are kept


def test_the_command_reports_what_a_live_run_would_have_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    bag = write_bag(tmp_path / "in", 4)
    assert main(["bag", str(bag), "--query", "the ring", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "4 images, 4 with a mask" in told
    assert "live at 30.0 Hz: 4 of 4 answered by the policy, 0 dropped" in told
    command = ["bag", str(bag), "--query", "the ring", "--out", str(tmp_path / "more"), "--results-only", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["rate_hz"] == pytest.approx(30.0, rel=1e-3)


def test_a_page_draws_times_and_drops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    bag, page = write_bag(tmp_path / "in", 4), tmp_path / "report.html"
    command = ["bag", str(bag), "--query", "the <ring>", "--report", str(page), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    drawn = page.read_text()
    assert "the &lt;ring&gt;, in in" in drawn
    charts = re.findall(r"<svg.*?</svg>", drawn, re.DOTALL)
    assert [len(list(ElementTree.fromstring(chart).iter("circle"))) for chart in charts] == [4, 3]
    assert not re.search(r"<script|https?:", drawn)
    assert main([*command, str(tmp_path / "more")]) == 2
    assert "exists; use --force" in capsys.readouterr().err
    assert not (tmp_path / "more.log").exists()  # refused before any query


def test_a_recording_for_rerun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    source = PowerSource("rails", "power", ("VDD_IN",), (0,), None, None, lambda: (7.5,), (None,))
    monkeypatch.setattr(PowerGauge, "find", lambda *about: PowerGauge(source))
    fake_session.install(monkeypatch)
    bag, file = write_bag(tmp_path / "in", 4), tmp_path / "out.rrd"
    command = ["bag", str(bag), "--query", "the ring", "--out"]
    assert main([*command, str(tmp_path / "out"), "--rerun", str(file)]) == 0
    assert file.read_bytes()[:4] == b"RRF2"
    print_it = [sys.executable, "-m", "rerun_cli", "rrd", "print", "-v", str(file)]
    told = subprocess.run(print_it, capture_output=True, text=True, check=True).stdout
    for entity in ("camera", "camera/mask", "camera/box", "camera/points", "rationale", "ms/decode", "power_w"):
        assert re.search(rf"with 4 rows .* - /{entity} - ", told), entity
    assert main([*command, str(tmp_path / "more"), "--rerun", str(file)]) == 2
    assert "exists; use --force" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "more"), "--rerun", "out.txt"]) == 2
    assert "ends in .rrd, or connect" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bag_of_300_frames_survives_a_kill_without_a_gap_or_a_double(tmp_path: Path) -> None:
    dataset = SceneDataset("test")
    bag = write_bag(tmp_path / "in", 300, draw=lambda number: dataset[number // 30].image)
    out, log = tmp_path / "out", tmp_path / "out.log"
    command = [
        sys.executable,
        "-m",
        "wise_edge",
        "bag",
        str(bag),
        "--query",
        "the red ring",
        "--out",
        str(out),
        "--json",
    ]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not log.exists() or log.read_bytes().count(b"\n") < 60:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not out.exists()

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert (figures["frames"], figures["reused"] >= 59) == (300, True)
    after = read_bag(out)
    stamps = [BEGIN_NS + number * STEP_NS for number in range(300)]
    for topic in (TOPIC, MASKS, FOUND):
        assert [stamp_of(message.header) for _, message in after[topic]] == stamps
    assert [json.loads(message.data)["stamp_ns"] for _, message in after[TOLD]] == stamps


def test_everything_that_can_be_known_is_checked_before_models_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened = fake_session.install(monkeypatch)
    bag = write_bag(tmp_path / "in", 2)
    (tmp_path / "made").mkdir()
    (tmp_path / "killed.log").write_text("{}\n")
    (tmp_path / "file").write_text("")
    right = {"--query": "the ring", "--out": str(tmp_path / "out")}
    for wrong, line in (
        ({"--query": ""}, "the argument after --query is empty"),
        ({"--query": "x" * 2000}, "has 2000 characters"),
        ({"--variant": "wiser"}, "unknown variant 'wiser'; choose one of verbose"),
        ({"--variant": ""}, "the argument after --variant is empty"),
        ({"--storage": "tape"}, "unknown storage 'tape'"),
        ({"--topic": "/depth"}, "has no images on /depth"),
        ({"--topic": ""}, "the argument after --topic is empty"),
        ({"--out": str(tmp_path / "made")}, "exists; choose another folder"),
        ({"--out": str(tmp_path / "killed")}, "continue it with --resume, or delete the file"),
        ({"--out": str(tmp_path / "file" / "out")}, "cannot write into"),
        ({"--report": str(tmp_path / "none" / "page.html")}, "does not exist; create it first"),
        ({"--report": str(bag / "in.mcap"), "--force": ""}, "would replace what this command reads"),
        ({"--rerun": "page.html"}, "pass a file name that ends in .rrd"),
    ):
        arguments = [
            part for name, value in (right | wrong).items() for part in ([name] if name == "--force" else [name, value])
        ]
        assert main(["bag", str(bag), *arguments]) == 2, line
        assert line in capsys.readouterr().err
    assert opened.calls == []
    assert {file.name for file in tmp_path.iterdir()} == {"in", "made", "killed.log", "file"}
