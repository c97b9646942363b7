"""Writing files and folders so that a reader never sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wise_edge.errors import UsageError


def atomic_write(path: str | Path, data: bytes, *, force: bool = False) -> None:
    """Write a file at once: into a temporary neighbor, to disk, then renamed into place.

    Args:
        path: the file to write; its folder must exist.
        data: the whole content.
        force: replace a file that exists.

    Raises:
        UsageError: the file exists and `force` is off, or the folder is missing or cannot be written.
    """
    target = check_target(path, force=force)
    try:
        with replacing(target) as fresh:
            fresh.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error


def check_target(path: str | Path, *, force: bool = False) -> Path:
    """Refuse a file that `atomic_write` would refuse, before the work whose result it is to hold.

    Args:
        path: the file to write.
        force: allow a file that exists.

    Returns:
        The path.

    Raises:
        UsageError: the file exists and `force` is off, or the folder is missing or cannot be written.
    """
    target = Path(path)
    try:
        exists = target.exists()
    except OSError as error:  # the name is too long
        raise UsageError(f"cannot write {str(target)[:200]}: {error.strerror}") from error
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file")
    if exists and not force:
        raise UsageError(f"{target} exists; use --force to replace it")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"cannot write into the folder {target.parent}; choose another")
    return target


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary neighbor to write, which takes the target's place, flushed to disk, when the block ends well.

    When the block raises, nothing of it is kept and the target stays as it was.
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


def check_folder_target(target: Path, *, marker: str, force: bool = False) -> None:
    """Refuse a target that `replacing_folder` would refuse, before the work whose result it is to hold.

    Args:
        target: the folder to write.
        marker: name of the file by which a folder that may be replaced is known, for example "bundle.json".
        force: allow a folder that exists.

    Raises:
        UsageError: the target exists and `force` is off, it is neither empty nor a folder with the marker, or the
            folder that it should lie in does not exist.
    """
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it first")
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / marker).is_file()):
        raise UsageError(f"{target} exists and has no {marker}; name another folder")
    if not force:
        raise UsageError(f"{target} exists; use --force to replace it")


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the target's place, flushed to disk, when the block ends well.

    When the block raises, nothing of it is kept and the target stays as it was. An existing target is moved aside
    before the new folder takes its place, and moved back if that fails; it is removed only once the new one stands.
    """
    place = target.resolve()
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
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
    """Flush a file or a folder's entries to the disk."""
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


def cache_folder() -> Path:
    """Return where files lie that save time and may be deleted at any time; it need not be there yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wise-edge"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
