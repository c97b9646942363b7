"""Wait for what another thread or process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return once a condition holds; fail if it does not within a time that only a broken test needs."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, f"the condition did not hold within {seconds:g} s"
        threading.Event().wait(0.002)


def is_alive(pid: int) -> bool:
    """Return whether a process of Linux runs; one that has ended may still wait for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
