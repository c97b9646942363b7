"""Refuse what looks like a file of a user but cannot be read as one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from wise_edge.errors import UsageError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


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
