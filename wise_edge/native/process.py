"""Child processes that end with the process that started them, even if that one is killed.

Linux sends a signal of the child's choice when the thread that started it ends. Elsewhere, the child looks once a
second whether it still has its parent.

Source: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_SET_PDEATHSIG = 1
_EVERY_S = 1.0


def end_with_parent(parent: int) -> None:
    """End this process, without clean-up, as soon as its parent has ended. Call it first in a child.

    Args:
        parent: process id of the parent, read there before the child was started: it may have ended by now.
    """
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL) == 0:
        _end_without(parent)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python module in a process that ends with this one."""
    return [sys.executable, "-m", __name__, str(os.getpid()), module, *arguments]


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while True:
        _end_without(parent)
        time.sleep(_EVERY_S)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
