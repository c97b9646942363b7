"""What commands on pictures share: the files that they write, checked before a model is opened, and reading."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.cli import options
from wise_edge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wise_edge.bundle.store import Bundle
    from wise_edge.outputs.saving import Kind


def plan_files(
    pictures: Sequence[str],
    named: Mapping[Kind, Path | None],
    out: Path | None,
    save: str | None,
    kinds: Sequence[Kind],
) -> tuple[list[list[tuple[Kind, Path]]], Path | None]:
    """Return the files that are written for each picture, and the one for all.

    Args:
        pictures: that are read.
        named: files of options that name one; there must be one picture then.
        out: the folder of --out.
        save: what --save lists; None means overlays.
        kinds: what it may list.

    Raises:
        UsageError: a name does not fit its content, --out is no folder's or --save names an unknown kind.
    """
    from wise_edge.images import SUFFIXES
    from wise_edge.outputs import folder
    from wise_edge.outputs.saving import kind_of

    given = [(kind, file) for kind, file in named.items() if file is not None]
    for kind, file in given:
        kind_of(file, kind)
        if len(pictures) > 1:
            raise UsageError(
                f"--{kind} writes one file, and there are {len(pictures)} pictures; pass --out DIR --save {kind}"
            )
    if out is not None and out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise UsageError(f"--out is a folder, and {out} looks like a picture; for one file use --overlay {out}")
    if out is None:
        if save is not None:
            raise UsageError("--save needs a folder; add --out DIR")
        return [given for _ in pictures], None
    asked = ["overlay"] if save is None else options.split_names("--save", "kind", save, kinds)
    chosen = [kind for kind in kinds if kind in asked]
    planned = [[*given, *files.items()] for files in folder.plan_files(out, pictures, chosen)]
    return planned, out / folder.COCO_NAME if "coco" in chosen else None


def check_files(
    targets: Sequence[Path], out: Path | None, pictures: Sequence[str], keep: Sequence[Path | None], force: bool
) -> None:
    """Raise `UsageError` if a file cannot be written or is kept, or a further run would take results for pictures."""
    from wise_edge.files.targets import make_folder
    from wise_edge.images.sources import STDIN
    from wise_edge.outputs import folder

    new = out is not None and not os.path.lexists(out)
    if out is not None and not new:
        make_folder(out)
        if len(pictures) > 1 and any(out.samefile(Path(name).parent) for name in pictures if name != STDIN):
            raise UsageError(
                f"--out {out} is where the pictures are; choose another folder, so that results stay apart"
            )
    folder.check_files([file for file in targets if not (new and file.parent == out)], pictures, force=force, keep=keep)


def open_pictures(
    pictures: Sequence[str], out: Path | None, bundle: Bundle | None, *, ahead: bool = True
) -> Iterator[npt.NDArray[np.uint8] | UsageError]:
    """Return what reads the pictures one after another, see `read_each`; a single one is read at once.

    The folder of --out is made, and a note says if nobody verified the bundle.

    Raises:
        UsageError: the only picture cannot be read.
    """
    from wise_edge.files.targets import make_folder
    from wise_edge.images.sources import read_each

    readings = read_each(pictures, options.note, ahead=ahead)
    if len(pictures) == 1:  # is refused before the models are opened
        (only,) = readings
        if isinstance(only, UsageError):
            raise only
        readings = iter([only])
    if out is not None:
        make_folder(out)
    if bundle is not None and not bundle.manifest.verified:
        options.note(f"{bundle.directory} was never compared with its checkpoints (export --no-verify)")
    return readings
