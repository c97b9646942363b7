"""Where results on several pictures lie in one folder: a file of each kind for each picture, and one of all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.targets import check_target
from wise_edge.images.sources import STDIN
from wise_edge.outputs.saving import Kind

COCO_NAME = "coco.json"
"""Of the file for the results on all pictures."""
_ENDINGS: dict[Kind, str] = {
    "overlay": "-overlay.png",
    "mask": "-mask.png",
    "cutout": "-cutout.png",
    "outlines": ".svg",
    "json": ".json",
}
_LONGEST = 230
"""Bytes of a picture's name, of the 255 that nearly all file systems allow."""
_JPEG = (".jpg", ".jpeg")

Files = dict[Kind, Path]
"""What is written for a picture, and where."""


def plan_files(folder: Path, pictures: Sequence[str], kinds: Iterable[Kind]) -> list[Files]:
    """Return the files for each picture: x-overlay.jpg, x-mask.png, x-cutout.png, x.svg and x.json for x.jpg.

    Overlays are JPEG files for pictures that are, else PNG. COCO, which is one file for all, is left out.
    """
    kinds = [kind for kind in kinds if kind != "coco"]
    planned = []
    for picture, name in zip(pictures, name_pictures(pictures), strict=True):
        files = {kind: folder / f"{name}{_ENDINGS[kind]}" for kind in kinds}
        if "overlay" in files and picture.lower().endswith(_JPEG):
            files["overlay"] = files["overlay"].with_suffix(".jpg")
        planned.append(files)
    return planned


def name_pictures(pictures: Sequence[str]) -> list[str]:
    """Return a name for each picture, without a suffix; on no file system are two of them one.

    A name is that of the file; where several have it, the folders that tell them apart stand before it, as in "left_x"
    and "right_x", or the suffix behind it, as in "x_jpg" and "x_png". What is still alike is numbered.
    """
    paths = [Path(os.path.abspath("stdin" if picture == STDIN else picture)) for picture in pictures]
    names = [path.stem for path in paths]
    for group in _alike(names):
        common = os.path.commonpath([paths[place].parent for place in group])
        for place in group:
            names[place] = "_".join(paths[place].with_suffix("").relative_to(common).parts)
    for group in _alike(names):
        for place in group:
            names[place] += paths[place].suffix.replace(".", "_")
    names = [_cut(name) for name in names]
    taken = {Path(COCO_NAME).stem}
    for place, name in enumerate(names):
        numbered = (f"{name}-{number}" for number in count(2))
        names[place] = next(free for free in chain([name], numbered) if free.casefold() not in taken)
        taken.add(names[place].casefold())
    return names


def _cut(name: str) -> str:
    """Leave room for an ending, and a number, in a name."""
    coded = os.fsencode(name)
    return name if len(coded) <= _LONGEST else coded[:_LONGEST].decode(errors="ignore")


def _alike(names: Sequence[str]) -> list[list[int]]:
    """Return the places of names that several pictures have, in whatever case."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.casefold(), []).append(place)
    return [group for group in places.values() if len(group) > 1]


def check_files(
    files: Iterable[Path], pictures: Iterable[str], *, force: bool = False, keep: Iterable[Path | None] = ()
) -> None:
    """Reject files that cannot be written, before the first picture is read.

    Args:
        files: to be written, into folders that exist.
        pictures: that are read, which even `force` does not replace.
        force: allow files that exist.
        keep: other files that are read.

    Raises:
        UsageError: as `check_target`, or two are the same file.
    """
    read = {_identity(path): Path(path) for path in pictures}
    seen: set[str] = set()
    for file in files:
        place = os.path.realpath(file)
        if place in seen:
            raise UsageError(f"two outputs have the name {file}; choose another name for one")
        seen.add(place)
        check_target(file, force=force, keep=[*keep, read.get(_identity(file))])


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Return what all names of a file have in common, hard links included; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
