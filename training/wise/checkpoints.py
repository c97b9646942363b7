"""Checkpoint folders of a WISE training: staged, moved to their place when complete, and checked before use."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from wise_edge.files.writing import replacing_folder

_PREFIX = "checkpoint-"
_STAGED = ".partial"
_SIZES = "sizes.json"


def staging_folder(out: Path) -> Path:
    """Return the folder in which a checkpoint is written before it is published."""
    return out / _STAGED


def checkpoint_name(step: int) -> str:
    """Return the name that transformers gives the checkpoint of a step."""
    return f"{_PREFIX}{step}"


def checkpoint_step(folder: Path) -> int:
    """Return the step of a checkpoint."""
    return int(folder.name.removeprefix(_PREFIX))


def publish(out: Path, name: str) -> None:
    """Flush a staged folder to disk and move it to its place in the folder of the run, with the sizes of its files."""
    staged = staging_folder(out) / name
    sizes = {str(file.relative_to(staged)): file.stat().st_size for file in staged.rglob("*") if file.is_file()}
    (staged / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")
    with replacing_folder(out / name) as fresh:
        staged.rename(fresh)  # onto a folder that is still empty
    for leftover in out.glob(f".{name}.*"):  # of a run that was killed while it published
        shutil.rmtree(leftover)


def drop_old_checkpoints(out: Path, kept: int) -> None:
    """Remove all but the newest checkpoints."""
    for old in _checkpoints(out)[:-kept]:
        shutil.rmtree(old)


def newest_checkpoint(out: Path) -> Path | None:
    """Return the newest complete checkpoint, or None; a damaged one is skipped with a warning on stderr."""
    for folder in reversed(_checkpoints(out)):
        if _is_complete(folder):
            return folder
        print(f"warning: {folder} is damaged and was skipped", file=sys.stderr)
    return None


def _checkpoints(out: Path) -> list[Path]:
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=checkpoint_step)


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _SIZES).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
