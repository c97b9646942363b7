"""What may be wrong with files and with the file systems on which they lie."""

from __future__ import annotations

from pathlib import Path

import pytest


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def take_away_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have flock fail as on a file system without locks."""

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("wise_edge.files.locks.fcntl.flock", unsupported)
