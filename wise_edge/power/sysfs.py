"""Reading files of sysfs and procfs, which hold one value each and may be missing or unreadable."""

from __future__ import annotations

import math
import os
from pathlib import Path

from wise_edge.errors import DeviceError

ROOT = Path("/")
"""Where the file system of this machine begins."""
_NEEDS_PERMISSION = "run as root, or grant your user read access with a udev rule"


class NumberFile:
    """A file that holds one number and is kept open, since opening it for every reading takes longer than reading it.

    Args:
        file: the file, which may be missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle: int | None = None

    def __del__(self) -> None:
        self._close()

    def read(self) -> float:
        """Return the file's current number.

        Raises:
            DeviceError: it cannot be read or is not a finite number.
        """
        try:
            if self._handle is None:
                self._handle = os.open(self._file, os.O_RDONLY)
            text = os.pread(self._handle, 64, 0)
        except OSError as error:
            self._close()  # the next reading finds the file again if its driver was reloaded
            advice = f"; {_NEEDS_PERMISSION}" if isinstance(error, PermissionError) else ""
            raise DeviceError(f"{self._file} cannot be read: {error.strerror}{advice}") from error
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DeviceError(f"{self._file} holds no number")
        return value

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_number(file: Path) -> float | None:
    """Return the number in a file; None if it is not a finite number or cannot be read."""
    try:
        return NumberFile(file).read()
    except DeviceError:
        return None


def read_text(file: Path) -> str:
    """Return a file's text without surrounding white space and NUL bytes; empty if the file cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0\t\n ")
    except OSError:
        return ""
