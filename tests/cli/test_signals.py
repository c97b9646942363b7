"""Ctrl-C and SIGTERM end a command quietly, whenever they come: while Python imports, works, cleans up or exits."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SIGNAL_AT_IMPORT = """
import os, runpy, sys
number, module = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
sys.addaudithook(lambda event, args: event == "import" and args[0] == module and os.kill(os.getpid(), number))
runpy.run_module("wise_edge", run_name="__main__", alter_sys=True)
"""
SIGNAL_AT_EXIT = """
import atexit, os, runpy, sys
atexit.register(os.kill, os.getpid(), int(sys.argv.pop(1)))
runpy.run_module("wise_edge", run_name="__main__", alter_sys=True)
"""
LISTENING = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Undoes that whoever started the tests has SIGINT ignored, as a script's `&` does."""


def end_of(code: str, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a program."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


# In the order in which a query imports them: those of the entry, of the command, of the session.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["wise_edge.cli.main", "typer", "rich.console", "numpy", "onnxruntime.capi"])
def test_a_signal_during_an_import_ends_the_command_quietly(number: signal.Signals, module: str) -> None:
    image = str(Path(__file__).parents[2] / "docs" / "scene.png")

    assert end_of(LISTENING + SIGNAL_AT_IMPORT, str(int(number)), module, "run", image, "the ring") == (
        128 + number,
        "",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_process_exits_is_quiet_too(number: signal.Signals) -> None:
    assert end_of(LISTENING + SIGNAL_AT_EXIT, str(int(number)), "--version") == (128 + number, "")


def test_an_ignored_signal_stays_ignored() -> None:
    """As `nohup` and a script's `&` ask for."""
    ignoring = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{SIGNAL_AT_IMPORT}"

    assert end_of(ignoring, str(int(signal.SIGINT)), "typer", "--version") == (0, "")
