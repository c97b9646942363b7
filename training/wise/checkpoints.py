"""Folders of a WISE training: staged, moved to their place when complete, and checked by their hashes before use."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.hashing import hash_file
from wise_edge.files.writing import replacing_folder

_PREFIX = "checkpoint-"
_STAGED = ".partial"
_HASHES = "sha256.json"


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
    """Move a staged folder, sealed and flushed to disk, to its place in the folder of the run."""
    staged = staging_folder(out) / name
    seal(staged)
    with replacing_folder(out / name) as fresh:
        staged.rename(fresh)  # onto a folder that is still empty


def seal(folder: Path, source: Path | None = None) -> None:
    """Write the sha256 of each file of a folder into it.

    Args:
        folder: complete but for this.
        source: the folder that it was made from; its identity is noted if it is sealed.
    """
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / _HASHES]
    files = {str(file.relative_to(folder)): hash_file(file) for file in found}
    made_from = {"made_from": hash_file(source / _HASHES)} if source is not None and (source / _HASHES).exists() else {}
    (folder / _HASHES).write_text(to_json({"files": files, **made_from}, indent=2) + "\n", encoding="utf-8")


def is_sound(folder: Path, source: Path | None = None) -> bool:
    """Return whether the files of a folder are those that were sealed, and were made from `source` as it is now."""
    try:
        record = read_json(folder / _HASHES)
        if source is not None and record["made_from"] != hash_file(source / _HASHES):
            return False
        return all(hash_file(folder / name) == digest for name, digest in record["files"].items())
    except (OSError, UsageError, KeyError, AttributeError):
        return False


def drop_old_checkpoints(out: Path, step: int, kept: int) -> None:
    """Remove all but the newest checkpoints up to a step; a later one is damaged, and the run will replace it."""
    for old in [folder for folder in _checkpoints(out) if checkpoint_step(folder) <= step][:-kept]:
        shutil.rmtree(old)


def newest_checkpoint(out: Path) -> Path | None:
    """Return the newest sound checkpoint, or None if there is none; damaged ones are skipped with a warning on stderr.

    Raises:
        UsageError: all of them are damaged.
    """
    found = _checkpoints(out)
    for folder in reversed(found):
        if is_sound(folder):
            return folder
        print(f"warning: {folder} is damaged and was skipped", file=sys.stderr)
    if found:
        raise UsageError(f"every checkpoint in {out} is damaged; restore one from a copy, or choose another --out")
    return None


def _checkpoints(out: Path) -> list[Path]:
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=checkpoint_step)
