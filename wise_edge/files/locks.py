"""Locks on what a command writes for long, so that two processes never write one place."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wise_edge.errors import UsageError

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def holding(place: Path) -> Iterator[None]:
    """Hold the lock on a file or folder that exists.

    The kernel releases it when the process and its forks have ended, for whatever reason. On a file system that knows
    no such locks, as some network ones for folders, the block runs without.

    Raises:
        UsageError: another process holds it.
        OSError: the place cannot be opened.
    """
    descriptor = _lock(place)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(place: Path) -> int:
    """Return a locked descriptor of what the path names now: it may be replaced or removed before the lock is held."""
    while True:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _HELD:
                    raise UsageError(
                        f"{place} is being written by another process{_name_holder(descriptor)}; wait until it has "
                        "ended, or choose another place"
                    ) from None
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


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
