"""Check what a command will write, before the work whose result it will hold."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_special


def check_target(path: str | Path, *, force: bool = False, keep: Iterable[Path | None] = ()) -> Path:
    """Reject a file that `atomic_write` would reject, before the work whose result it will hold.

    Args:
        path: the file to write.
        force: allow an existing file.
        keep: what the work reads, which even `force` does not replace; see `refuse_input`.

    Returns:
        The path.

    Raises:
        UsageError: the file exists and `force` is off, it is a device or a pipe, it is what must be kept, or the folder
            is missing or cannot be written.
    """
    target = Path(path)
    exists = _exists(target)
    refuse_special(target)  # the rename would put a file in its place
    refuse_input(target, keep)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; pass a file")
    if exists and not force:
        raise UsageError(f"{target} exists; use --force to replace it")
    check_parent(target)
    return target


def check_folder_target(
    target: Path, *, marker: str | None, force: bool = False, keep: Iterable[Path | None] = ()
) -> None:
    """Reject a target that cannot or must not be replaced, before the work whose result it will hold.

    Args:
        target: the folder to write.
        marker: name of the file that identifies a folder that may be replaced, for example "bundle.json"; None allows
            any folder.
        force: allow an existing folder.
        keep: what the work reads, which even `force` does not replace; see `refuse_input`.

    Raises:
        UsageError: the target exists and `force` is off, it is neither empty nor a folder with the marker, it is or
            holds what must be kept, it is a git repository, a disk is mounted on it, or its parent folder does not
            exist or cannot be written.
    """
    exists = _exists(target)
    refuse_input(target, keep)
    if exists and not target.is_dir():
        raise UsageError(f"{target} exists and is not a folder; choose another name")
    if exists and marker is not None and any(target.iterdir()) and not (target / marker).is_file():
        raise UsageError(f"{target} exists and has no {marker}; choose another folder")
    if exists and not force:
        raise UsageError(f"{target} exists; use --force to replace it")
    if (target / ".git").exists():  # a clone of a hub's repository, whose history would go with the folder
        raise UsageError(f"{target} is a git repository; choose another folder, and copy its files here")
    if target.is_mount():  # it cannot be renamed
        raise UsageError(f"{target} is a mount point; choose a folder in it")
    check_parent(target)


def refuse_input(target: Path, read: Iterable[Path | None]) -> None:
    """Reject an output that would replace what is read, whatever name or link leads to it.

    Args:
        target: the file or folder to write.
        read: files and folders that are read; None for those that were not given, and those missing, are left out.

    Raises:
        UsageError: the target is one of them, a file in one, or a folder that has one in it.
    """
    if not target.exists():
        return
    place = target.resolve()
    for path in read:
        if path is None or not path.exists():
            continue
        source = path.resolve()
        if target.samefile(path) or place in source.parents or (place.is_file() and source in place.parents):
            raise UsageError(f"{target} would replace what this command reads ({path}); choose another output")


def make_folder(folder: Path, advice: str = "choose another") -> Path:
    """Make a folder that files will be written into, with its parents, unless it exists, and return it.

    Raises:
        UsageError: it cannot be made or written into; `advice` says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {folder}: {error.strerror}; {advice}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write into the folder {folder}; {advice} or change its permissions")
    return folder


def check_parent(target: Path) -> None:
    """Raise `UsageError` if there is no folder for a target, or nothing can be written into it."""
    parent = Path(os.path.realpath(target)).parent  # of what a link leads to
    shown = target.parent if target.parent.resolve() == parent else parent
    if not parent.is_dir():
        raise UsageError(f"the folder {shown} does not exist; create it first")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"cannot write into the folder {shown}; choose another or change its permissions")


def _exists(target: Path) -> bool:
    try:
        return os.path.lexists(os.path.realpath(target)) or target.exists()
    except OSError as error:  # the name is too long
        raise UsageError(f"cannot write {str(target)[:200]}: {error.strerror}") from error
