"""Writing files and folders atomically, so that no reader sees an incomplete one, and reading what users bring."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def atomic_write(path: str | Path, data: bytes, *, force: bool = False) -> None:
    """Write a file atomically: into a temporary neighbor, flushed to disk, then renamed into place.

    Args:
        path: the file to write; its folder must exist.
        data: the complete content.
        force: replace an existing file.

    Raises:
        UsageError: the file exists and `force` is off, or the folder is missing or cannot be written.
    """
    target = check_target(path, force=force)
    try:
        with replacing(target) as fresh:
            fresh.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error


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
    _check_parent(target)
    return target


def _exists(target: Path) -> bool:
    try:
        return target.exists()
    except OSError as error:  # the name is too long
        raise UsageError(f"cannot write {str(target)[:200]}: {error.strerror}") from error


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"cannot write into the folder {target.parent}; choose another or change its permissions")


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
            raise UsageError(f"{target} would replace what this command reads ({path}); name another output")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary neighbor to write, which replaces the target, flushed to disk, when the block succeeds.

    If the block raises, the temporary file is removed and the target stays as it was.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp gives 0600, an ordinary file follows the umask
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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


def check_folder_target(target: Path, *, marker: str, force: bool = False, keep: Iterable[Path | None] = ()) -> None:
    """Reject a target that cannot or must not be replaced, before the work whose result it will hold.

    Args:
        target: the folder to write.
        marker: name of the file that identifies a folder that may be replaced, for example "bundle.json".
        force: allow an existing folder.
        keep: what the work reads, which even `force` does not replace; see `refuse_input`.

    Raises:
        UsageError: the target exists and `force` is off, it is neither empty nor a folder with the marker, it is or
            holds what must be kept, or its parent folder does not exist or cannot be written.
    """
    exists = _exists(target)
    refuse_input(target, keep)
    if exists and (not target.is_dir() or (any(target.iterdir()) and not (target / marker).is_file())):
        raise UsageError(f"{target} exists and has no {marker}; choose another folder")
    if exists and not force:
        raise UsageError(f"{target} exists; use --force to replace it")
    _check_parent(target)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces the target, flushed to disk, when the block succeeds.

    If the block raises, the new folder is removed and the target stays as it was. An existing target is moved aside
    before the new folder takes its place, and moved back if that fails; it is removed only after the replacement.

    Raises:
        UsageError: the folder around the target cannot be written.
    """
    place = target.resolve()
    try:
        scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name[:100]}."))
    except OSError as error:
        raise UsageError(f"cannot write into the folder {place.parent}: {error.strerror}; choose another") from error
    try:
        fresh = scratch / "new"
        fresh.mkdir()  # mkdtemp gives 0700, an ordinary folder follows the umask
        yield fresh
        for file in (*fresh.rglob("*"), fresh):
            _flush(file)
        _replace(place, fresh, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(place: Path, fresh: Path, aside: Path) -> None:
    existed = place.exists()
    if existed:
        place.rename(aside)
    try:
        fresh.rename(place)
    except OSError:
        if existed:
            aside.rename(place)
        raise
    _flush(place.parent)


def refuse_special(path: str | Path) -> None:
    """Reject a device, a socket or a named pipe, whose reading may wait or go on forever.

    A pipe that a shell hands over, as `<(command)` or /dev/stdin, is accepted: it ends with its command.

    Raises:
        UsageError: it is one of these.
    """
    try:
        mode, place = os.stat(path).st_mode, os.path.realpath(path)
    except (OSError, ValueError):
        return  # whoever opens it reports it
    handed_over = stat.S_ISFIFO(mode) and not os.path.exists(place)  # place is "/proc/PID/fd/pipe:[NUMBER]"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or handed_over:
        return
    kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise UsageError(f"{path} is {kind}; pass a regular file")


def refuse_lfs_pointer(file: Path) -> None:
    """Reject a pointer of Git LFS, the text that a clone holds in place of a large file until it is pulled.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.

    Args:
        file: any path; only a file that begins as such a pointer, or what `refuse_special` rejects, is rejected. A pipe
            is not read, since what was read of it would be missing later.

    Raises:
        UsageError: the file is a pointer, or no file.
    """
    refuse_special(file)
    try:
        if not file.is_file():
            return
        with file.open("rb") as stream:
            head = stream.read(len(_LFS_POINTER))
    except OSError:
        return  # whoever reads the file reports it
    if head == _LFS_POINTER:
        raise UsageError(f"{file} is a Git LFS pointer and not the file itself; run 'git lfs pull' where it was cloned")


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        UsageError: the file cannot be read, is a pointer of Git LFS, is not JSON in UTF-8, or holds something other
            than an object.
    """
    refuse_lfs_pointer(file)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{file} does not hold a JSON object")
    return data


def cache_folder() -> Path:
    """Return the folder for files that only save time and may be deleted at any time; it may not exist yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wise-edge"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
