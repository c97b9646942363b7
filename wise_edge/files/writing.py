"""Write files and folders atomically, so that no reader sees an incomplete one.

What is made of a target lies in a hidden folder beside it, the scratch, until it is complete. Its writer holds a lock
there: a second one is refused before it begins, and what one that was killed has left is removed by the next.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.locks import holding
from wise_edge.files.refusals import explain_refusal
from wise_edge.files.renaming import exchange, rename_new
from wise_edge.files.targets import check_folder_target, check_parent, check_target

_SUFFIX = ".wise-edge"
_LONGEST_NAME = 255  # bytes, of nearly all file systems
_NEW, _OLD, _LOCK = "new", "old", "lock"


def atomic_write(path: str | Path, data: bytes, *, force: bool = False, held: bool = False) -> None:
    """Write a file atomically: beside its place, flushed to disk, then renamed into place.

    Args:
        path: the file to write; its folder must exist.
        data: the complete content.
        force: replace an existing file.
        held: as of `replacing`.

    Raises:
        UsageError: the file exists and `force` is off, the folder is missing or cannot be written, or another process
            writes it.
        WiseEdgeError: the write failed.
    """
    target = check_target(path, force=force)
    with replacing(target, force=force, held=held) as fresh:
        fresh.write_bytes(data)


@contextmanager
def replacing(target: Path, *, force: bool = True, held: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the target's place, flushed to disk, when the block succeeds.

    If the block raises, the target stays as it was. A target that is a link stays one; what it leads to is replaced.

    Args:
        target: the file.
        force: replace a file that appears meanwhile.
        held: this process holds the target's own lock, see `claiming`.

    Raises:
        UsageError: another process writes the target, or the folder cannot be written.
        WiseEdgeError: a write failed; or another process appends to the target or, without `force`, the target appeared
            meanwhile: the new file is then kept beside it.
    """
    place = _resolve(target)
    with _scratch(target, place) as scratch:
        fresh = scratch / _NEW
        yield fresh
        _flush(fresh)
        with _kept_beside(target, fresh, place), nullcontext() if held else _unless_appended_to(place, target):
            os.replace(fresh, place) if force else rename_new(fresh, place)
        _flush(place.parent)


@contextmanager
def replacing_folder(
    target: Path, *, marker: str | None = None, force: bool = True, keep: Iterable[Path | None] = ()
) -> Iterator[Path]:
    """Check a target, hold it, and yield an empty folder to fill, which takes its place when the block succeeds.

    The new folder is flushed to disk and exchanged with the old one in one step; where the kernel or the file system
    cannot do that, the old one is moved aside first, and moved back by this call or, after a SIGKILL, by the next one.
    If the block raises, the target stays as it was. Beside the yielded folder there is room for temporary files.

    Args:
        target: the folder to write.
        marker: as of `check_folder_target`; None allows any folder.
        force: as of `check_folder_target`.
        keep: as of `check_folder_target`.

    Raises:
        UsageError: as `check_folder_target`, or another process writes the target; both before the block.
        WiseEdgeError: a write failed; or the target changed meanwhile into what must not be replaced: the new folder is
            then kept beside it.
    """
    keep = tuple(keep)
    place = _resolve(target)
    with _scratch(target, place) as scratch, ExitStack() as held:
        check_folder_target(target, marker=marker, force=force, keep=keep)
        if place.is_dir():  # whoever adds to it, as `wise-edge build`, holds the folder itself
            held.enter_context(holding(place, target))
        fresh = scratch / _NEW
        fresh.mkdir()
        with naming(target, fresh):
            yield fresh
        for file in (*fresh.rglob("*"), fresh):
            _flush(file)
        with _kept_beside(target, fresh, place):
            if force:
                check_folder_target(target, marker=marker, force=True, keep=keep)
                _replace(place, fresh, scratch / _OLD)
            else:
                rename_new(fresh, place)
        _flush(place.parent)


def recover(folder: Path) -> None:
    """Put back what killed processes had moved aside in a folder, and remove what they left of new files and folders.

    Raises:
        UsageError: a process that still runs writes something there.
        WiseEdgeError: it cannot be removed.
    """
    for scratch in sorted(folder.glob(f".*{_SUFFIX}")):
        target = folder / scratch.name[1 : -len(_SUFFIX)]
        with _scratch(target, _resolve(target)):
            pass


@contextmanager
def naming(place: Path, temporary: Path) -> Iterator[None]:
    """Name a place that the user knows in errors about a temporary one."""
    try:
        yield
    except WiseEdgeError as error:
        error.args = tuple(str(part).replace(str(temporary), str(place)) for part in error.args)
        raise


def _resolve(target: Path) -> Path:
    return Path(os.path.realpath(target))


@contextmanager
def _scratch(target: Path, place: Path) -> Iterator[Path]:
    """Hold a target and yield an empty folder beside it, which is removed at the end."""
    check_parent(target)
    scratch = place.with_name(_scratch_name(place.name))
    with ExitStack() as held, _explained(target, scratch):
        _hold(target, scratch, held)
        try:
            if _put_back(place, scratch):
                print(
                    f"warning: {target} was left aside by a process that was killed; it has been restored",
                    file=sys.stderr,
                )
            _empty(scratch)
            yield scratch
        finally:
            _put_back(place, scratch)  # before anything is removed: a signal may have come between two renames
            shutil.rmtree(scratch, ignore_errors=True)


def _scratch_name(name: str) -> str:
    """Return the name of a target's scratch, which is the same for all its writers."""
    whole = f".{name}{_SUFFIX}"
    if len(os.fsencode(whole)) <= _LONGEST_NAME:
        return whole
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{_SUFFIX}"


def _hold(target: Path, scratch: Path, held: ExitStack) -> None:
    """Make the scratch if it is not there, and hold its lock until `held` is closed."""
    while True:
        fresh = not os.path.lexists(scratch)
        scratch.mkdir(mode=0o700, exist_ok=True)
        if scratch.is_symlink():  # somebody else's, in a folder like /tmp
            raise UsageError(f"{scratch} is a link, but {target} is prepared in a folder of that name; delete the link")
        lock = scratch / _LOCK
        try:
            lock.touch()
            locked = held.enter_context(holding(lock, target))
        except FileNotFoundError:  # the process that held it has just removed it
            continue
        except PermissionError:
            raise UsageError(
                f"{scratch} belongs to another user, who is writing {target} or was killed while "
                "writing it; delete that folder if nobody is, or choose another place"
            ) from None
        if not locked and not fresh:
            raise UsageError(
                f"{scratch} exists: another process is writing {target}, or was killed; if none is, delete that folder"
            )
        return


def _put_back(place: Path, scratch: Path) -> bool:
    """Return whether an old folder that had been moved aside had to be put back."""
    old = scratch / _OLD
    missing = os.path.lexists(old) and not os.path.lexists(place)
    if missing:
        old.rename(place)
    return missing


def _empty(scratch: Path) -> None:
    for entry in scratch.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


@contextmanager
def _unless_appended_to(place: Path, target: Path) -> Iterator[None]:
    """Hold a file itself, as whoever appends to it does: what it appends after a replacement would be lost."""
    with ExitStack() as stack:
        if place.is_file():
            with suppress(FileNotFoundError, PermissionError):  # removed meanwhile; may be replaced, but not opened
                stack.enter_context(holding(place, target))
        yield


def _replace(place: Path, fresh: Path, aside: Path) -> None:
    """Put a folder in the place of another, if there is one."""
    if not os.path.lexists(place):
        rename_new(fresh, place)
    elif not exchange(fresh, place):
        place.rename(aside)
        fresh.rename(place)


@contextmanager
def _kept_beside(target: Path, fresh: Path, place: Path) -> Iterator[None]:
    """Keep what was made under another name beside the target if it cannot take the target's place."""
    try:
        yield
    except (OSError, UsageError) as error:
        if not os.path.lexists(fresh):
            raise
        reason = str(error) if isinstance(error, UsageError) else explain_refusal(error, place=False)
        if isinstance(error, FileExistsError):
            reason = f"{target} was created meanwhile and was not replaced"
        raise WiseEdgeError(f"{reason}; the new one is {_rename_free(fresh, place)}") from error


def _rename_free(fresh: Path, place: Path) -> Path:
    """Rename what was made to the first free name like its target's; return it."""
    stem, suffix = (place.name, "") if fresh.is_dir() else (place.stem, place.suffix)
    for number in count(2):
        free = place.with_name(f"{stem}-{number}{suffix}")
        try:
            rename_new(fresh, free)
        except FileExistsError:
            continue
        return free
    raise AssertionError  # pragma: no cover


@contextmanager
def _explained(target: Path, scratch: Path) -> Iterator[None]:
    """Tell a refusal of the system as one about the target, unless it is about another file."""
    try:
        yield
    except Exception as error:
        place = getattr(error, "filename", None)
        about_target = place is None or os.fsdecode(place).startswith(str(scratch))
        if isinstance(error, WiseEdgeError) or not about_target or not (reason := explain_refusal(error, place=False)):
            raise
        raise WiseEdgeError(f"cannot write {target}: {reason}") from error


def _flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
