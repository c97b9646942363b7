"""Training checkpoints: written completely or not at all, and read back from the newest one that is undamaged.

A checkpoint's hash lies beside it, as `sha256sum` writes and checks it: torch does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.hashing import hash_file
from wise_edge.files.writing import atomic_write, replacing
from wise_edge.native.torch_pickles import load_pickle

_KEPT = 2
_PATTERN = "checkpoint-*.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint after `step` steps, and remove all but the last two up to it.

    Raises:
        UsageError, WiseEdgeError, OSError: it cannot be written; those before are kept.
    """
    path = folder / f"checkpoint-{step:07d}.pt"
    with replacing(path) as fresh:
        digest = _write({"step": step, **state}, fresh)
        # Before the checkpoint takes its place, so that it is never without its hash; a hash alone does no harm.
        atomic_write(_sum_file(path), f"{digest}  {path.name}\n".encode(), force=True)
    saved = sorted(folder.glob(_PATTERN))
    place = saved.index(path)
    for old in (*saved[: max(0, place + 1 - _KEPT)], *saved[place + 1 :]):  # later ones were damaged
        old.unlink()
        _sum_file(old).unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint, or None if there is no checkpoint.

    A damaged one is skipped with a warning on stderr.

    Raises:
        WiseEdgeError: there are checkpoints, and all are damaged.
    """
    saved = sorted(folder.glob(_PATTERN), reverse=True)
    for path in saved:
        state = _read(path)
        if state is not None:
            return state
        print(f"warning: {path} is damaged and was skipped", file=sys.stderr)
    if saved:
        raise WiseEdgeError(f"every checkpoint in {folder} is damaged; restore one, or train again with another --out")
    return None


def sweep_checkpoints(folder: Path) -> None:
    """Remove what a killed process has left of checkpoints that it wrote. Call it while the folder is held."""
    for left in (*folder.glob(f".{_PATTERN}*"), *folder.glob("checkpoint-*.partial")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for file in folder.glob(f"{_PATTERN}.sha256"):
        if not file.with_suffix("").exists():
            file.unlink()


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _write(state: dict[str, Any], path: Path) -> str:
    """Write a checkpoint and return its sha256, hexadecimal."""
    with path.open("wb") as file:
        hashed: Any = _Hashed(file)
        try:
            torch.save(state, hashed)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    digest: str = hashed.digest.hexdigest()
    return digest


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state = load_pickle(path) if _is_as_written(path) else None
    except (UsageError, OSError):
        return None
    return state if isinstance(state, dict) and isinstance(state.get("step"), int) else None


def _is_as_written(path: Path) -> bool:
    file = _sum_file(path)
    if not file.exists():
        print(f"note: {path} has no hash beside it, so a flipped bit in it would not be noticed", file=sys.stderr)
        return True
    return file.read_text(encoding="ascii", errors="replace").split()[:1] == [hash_file(path)]
