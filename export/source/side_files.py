"""The files beside a checkpoint's weights: tokenizer, processor, generation and prompts, whichever a version writes."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

_SUFFIXES = {".json", ".jinja", ".txt", ".yaml"}


def copy_side_files(source: Path, out: Path, *, but: Collection[str] = ()) -> None:
    """Copy what a folder holds beside weights, its config included, without the files named in `but`."""
    for file in source.iterdir():
        if file.suffix in _SUFFIXES and file.name not in but and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
