"""Training checkpoints: written completely or not at all, and read back from the newest complete one."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

_KEPT = 2
_PATTERN = "checkpoint-*.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint after `step` steps and remove all but the last two."""
    path = folder / f"checkpoint-{step:07d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in sorted(folder.glob(_PATTERN))[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest readable checkpoint, or None; a damaged one is skipped with a warning on stderr."""
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile):
            print(f"warning: {path} is damaged and was skipped", file=sys.stderr)
            continue
        return state
    return None
