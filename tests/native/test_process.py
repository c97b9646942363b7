"""Child processes end with the process that started them, even if it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from waiting import is_alive, wait_for
from wise_edge.native.process import module_command

_PARENT = """
import subprocess, sys
from wise_edge.native import process
{first}
child = subprocess.Popen(process.module_command("timeit", "-n", "1", "import os, time; {ready}; time.sleep(600)"))
child.wait()
"""
_READY = "print(os.getpid(), flush=True)"


def start_parent(first: str = "") -> tuple[subprocess.Popen[str], int]:
    """Return a process that waits for its child, and the child's id."""
    script = _PARENT.format(first=first, ready=_READY)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_module_ends_when_its_parent_is_killed() -> None:
    parent, child = start_parent()
    with parent:
        assert is_alive(child)
        parent.kill()
    wait_for(lambda: not is_alive(child))


_NO_PRCTL = """
import ctypes, os, signal, sys, time
sys.platform = "other"  # where there is no such call
from wise_edge.native.process import end_with_parent
parent = os.getpid()
if os.fork() == 0:
    end_with_parent(parent)
    print(os.getpid(), flush=True)
    time.sleep(600)
os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_looks_for_its_parent_where_no_signal_tells() -> None:
    with subprocess.Popen([sys.executable, "-c", _NO_PRCTL], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not is_alive(child))


def test_a_child_whose_parent_has_ended_before_ends_at_once() -> None:
    command = module_command("timeit", "-n", "1", "import time; time.sleep(600)")
    command[command.index(str(os.getpid()))] = "1"  # a parent that is not this one
    assert subprocess.run(command, check=False, timeout=60).returncode == 1


def test_a_module_has_its_arguments_and_its_exit_code() -> None:
    done = subprocess.run(module_command("json.tool", "--indent", "1"), input="[1]", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[\n 1\n]\n")
    done = subprocess.run(module_command("no_such_module"), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no_such_module" in done.stderr


def test_a_module_of_a_parent_that_lives_ends_by_its_signals() -> None:
    with subprocess.Popen(
        module_command("timeit", "-n", "1", f"import os, time; {_READY}; time.sleep(600)"),
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and int(child.stdout.readline()) == child.pid
        child.terminate()
    assert child.returncode == -signal.SIGTERM
