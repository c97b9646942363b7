"""Renaming that replaces nothing, and renaming that exchanges two folders, each in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
"""https://man7.org/linux/man-pages/man2/rename.2.html"""
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
"""The file system lacks the flag, the kernel the call, or a container forbids it."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where that is not possible.

    Raises:
        OSError: one of them is missing, or cannot be renamed.
    """
    return _rename(one, other, _EXCHANGE)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free.

    Raises:
        FileExistsError: it is not.
        OSError: it cannot be renamed.
    """
    if _rename(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Call renameat2, which Python lacks; return False where it is not supported, as by some network file systems."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
