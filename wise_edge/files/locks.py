"""Locks on what a command writes for long, so that two processes never write one place."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wise_edge.errors import UsageError

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def holding(place: Path, written: Path | None = None) -> Iterator[bool]:
    """Hold the lock on a file or folder that exists; yield whether it is held.

    The kernel releases it when the process and its forks have ended, for whatever reason. On a file system that knows
    no such locks, as some network ones for folders, the block runs without.

    Args:
        place: the file or folder.
        written: what the message names as being written; None for the place itself.

    Raises:
        UsageError: another process holds it.
        OSError: the place cannot be opened.
    """
    descriptor, held = _lock(place, written or place, _open)
    try:
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def claiming(file: Path) -> Iterator[None]:
    """Hold the lock on a file to write; it is made if it does not exist, and removed if it is empty at the end.

    Raises:
        UsageError: another process holds it, or it cannot be made.
    """
    try:  # network file systems lock only what is open for writing
        descriptor, _ = _lock(file, file, _make)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another place") from error
    try:
        yield
    finally:
        if _names(file, descriptor) and not os.fstat(descriptor).st_size:
            os.unlink(os.path.realpath(file))  # not a link to it, which is the user's
        os.close(descriptor)


def _lock(place: Path, written: Path, opened: Callable[[Path], int]) -> tuple[int, bool]:
    """Return a descriptor of what the path names now, which may be replaced before it is locked; and whether it is."""
    while True:
        descriptor, held = opened(place), True
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _HELD:
                    raise UsageError(
                        f"{written} is being written by another process{_name_holder(descriptor)}; wait until it has "
                        "ended, or choose another place"
                    ) from None
                held = False
            if _names(place, descriptor):
                return descriptor, held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _names(place: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


def _open(place: Path) -> int:
    try:  # NFS locks only what is open for writing: https://man7.org/linux/man-pages/man2/flock.2.html
        return os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # a folder, or a file that may only be read
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC)


def _make(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _name_holder(descriptor: int) -> str:
    """Return " (PID)" of the process that holds the lock, or nothing if the kernel does not tell.

    Source: https://man7.org/linux/man-pages/man5/proc_locks.5.html.
    """
    inode = str(os.fstat(descriptor).st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == inode and int(fields[4]) > 0:
            return f" ({fields[4]})"
    return ""
