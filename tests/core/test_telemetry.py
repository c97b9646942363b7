"""Nothing reports what wise-edge does: no file is left in a home directory, and no socket leaves the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wise_edge.datasets.scenes import SceneDataset
from wise_edge.images import save_png

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
SPY = """
import sys
SOCKETS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto", "socket.sendmsg")
sys.addaudithook(lambda event, args: event in SOCKETS and print("a socket:", event, args, file=sys.stderr))
from wise_edge.cli.main import main
code = main(sys.argv[1:])
"""
LINGER = "import time; time.sleep(13)"  # ONNX Runtime 1.32 first looks up its host about 10 s after it was imported


def new_home(tmp_path: Path, **settings: str) -> dict[str, str]:
    """An environment like a newcomer's, with an empty home directory."""
    home = tmp_path / "home"
    home.mkdir()
    known = {name: value for name, value in os.environ.items() if name not in (*SWITCHES, "HF_HUB_OFFLINE")}
    return {**known, "HOME": str(home), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""} | settings


@pytest.fixture
def query(tmp_path: Path) -> list[str]:
    save_png(SceneDataset("test")[0].image, tmp_path / "scene.png", False)
    return ["run", str(tmp_path / "scene.png"), "the small ring", "--json"]


def test_a_query_leaves_nothing_in_a_home_directory_and_asks_nobody(tmp_path: Path, query: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{SPY}sys.exit(code)", *query],
        env=new_home(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees the sockets of native code")
def test_native_code_opens_no_socket_beyond_the_machine(tmp_path: Path, query: list[str]) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace)]

    subprocess.run([*strace, sys.executable, "-c", SPY + LINGER, *query], env=new_home(tmp_path), check=True)

    assert re.findall(r".*(?:connect|sendto|sendmsg|sendmmsg)\(.*AF_INET.*", trace.read_text()) == []


def test_libraries_read_the_switches() -> None:
    constants = "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"

    assert _python(f"import wise_edge; {constants}", dict.fromkeys(SWITCHES)) == "True"


def test_a_setting_of_the_user_wins() -> None:
    show = f"import os, wise_edge; print(*(os.environ[name] for name in {SWITCHES}))"

    assert _python(show, dict.fromkeys(SWITCHES)) == "1 1"
    assert _python(show, dict.fromkeys(SWITCHES, "0")) == "0 0"


def _python(code: str, settings: dict[str, str | None]) -> str:
    """What a program prints with environment variables set, or unset if None."""
    known = {name: value for name, value in os.environ.items() if name not in settings}
    given = {name: value for name, value in settings.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", code], env=known | given, capture_output=True, text=True, check=True
    ).stdout.strip()
