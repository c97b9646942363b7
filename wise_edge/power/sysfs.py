"""Reading files of sysfs and procfs, which hold one value each and may be missing or unreadable."""

from __future__ import annotations

import math
import os
from pathlib import Path

ROOT = Path("/")
"""Where the file system of this machine begins."""
UNREADABLE = "run as root, or grant your user read access with a udev rule"
"""What to do about a file that exists and cannot be read."""


class NumberFile:
    """A file that holds one number and is kept open, since opening it for every reading takes longer than reading it.

    Args:
        file: the file, which may be missing.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._handle: int | None = os.open(file, os.O_RDONLY)
        except OSError:
            self._handle = None

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def read(self) -> float | None:
        """Return the file's current number; None if it is not a finite number or cannot be read."""
        if self._handle is None:
            return None
        try:
            value = float(os.pread(self._handle, 64, 0))
        except (OSError, ValueError):
            return None
        return value if math.isfinite(value) else None


def read_number(file: Path) -> float | None:
    """Return the number in a file; None if it is not a finite number or cannot be read."""
    return NumberFile(file).read()


def read_text(file: Path) -> str:
    """Return a file's text without surrounding white space and NUL bytes; empty if the file cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0\t\n ")
    except OSError:
        return ""
