"""Logging to a Rerun viewer that is not there, or that reads nothing: no wait without an end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from node_results import node_result
from wise_edge.errors import DeviceError, UsageError
from wise_edge.robot import rerun_log
from wise_edge.robot.frames import Frame
from wise_edge.robot.rerun_log import CONNECT, RerunLog, check_rerun

pytest.importorskip("rerun", reason="rerun-sdk is not installed")
FRAME = Frame.of(np.zeros((5, 7, 3), np.uint8), 1_700_000_000_123_456_789)

# Logs to the listener of argv[1], says when it has, and waits for a line or a signal before it closes the log.
PROGRAM = """
import signal, sys
import numpy as np
from node_results import node_result
from wise_edge.robot import rerun_log
from wise_edge.robot.frames import Frame
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
rerun_log._VIEWER = ("127.0.0.1", int(sys.argv[1]))
rerun_log.PATIENCE_S = 1.0
with rerun_log.RerunLog("connect") as log:
    for stamp_ns in range(3):
        log(Frame.of(np.zeros((5, 7, 3), np.uint8), stamp_ns), node_result())
    print("logged", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a listener that accepts connections and reads nothing, as a viewer that hangs does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def start(port: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", PROGRAM, str(port)]
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    return process


def test_without_a_viewer_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(rerun_log, "_VIEWER", ("127.0.0.1", port))
    with pytest.raises(DeviceError, match=rf"no Rerun viewer is running here \(nothing listens at 127.0.0.1:{port}"):
        RerunLog(CONNECT)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/log.rrd", "the folder .* does not exist; create it first"),
        ("old.rrd", "old.rrd exists; use --force"),
        ("folder.rrd", "is a folder; pass a file"),
        ("log.txt", "ends in .rrd, or connect"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "old.rrd").write_bytes(b"RRF2")
    (tmp_path / "folder.rrd").mkdir()
    with pytest.raises(UsageError, match=message):
        check_rerun(str(tmp_path / name))


def test_a_viewer_that_hangs_is_given_up_and_the_process_ends(silent: int) -> None:
    with start(silent) as process:
        _, said = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert "logging to Rerun ends here: the viewer has not taken the last images within 1 s" in said


def test_a_signal_ends_the_process_while_a_viewer_hangs(silent: int) -> None:
    with start(silent) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_viewer_that_takes_no_more_images_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, silent: int
) -> None:
    taken, free = [], Event()

    def wait(self: RerunLog, frame: Frame, *_: object) -> None:  # as Rerun's own `log` once its memory is full
        taken.append(frame)
        free.wait(60)

    monkeypatch.setattr(rerun_log, "_VIEWER", ("127.0.0.1", silent))
    monkeypatch.setattr(rerun_log, "PATIENCE_S", 0.05)
    monkeypatch.setattr(RerunLog, "_write", wait)
    with caplog.at_level(logging.WARNING), RerunLog(CONNECT) as log:
        for _ in range(50):
            log(FRAME, node_result())
    assert len(taken) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "logging to Rerun ends here: the viewer has taken nothing for 0.05 s"
    ]
    free.set()


def test_a_failure_of_rerun_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(RerunLog, "_write", fail)
    with caplog.at_level(logging.WARNING), RerunLog(str(tmp_path / "log.rrd")) as log:
        for _ in range(50):
            log(FRAME, node_result())
    assert [record.getMessage() for record in caplog.records] == ["logging to Rerun ends here: the disk is full"]
