"""Write files and folders atomically, so that no reader sees an incomplete one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.targets import check_target


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
