"""Allows one profile at a time: two would disturb each other's measurements."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wise_edge.errors import DeviceError
from wise_edge.files.cache import cache_folder
from wise_edge.files.targets import make_folder


@contextmanager
def running_alone() -> Iterator[None]:
    """Hold a lock that other profiles of this user need; raises `DeviceError` if one is already running.

    The kernel releases the lock when the process ends for any reason.
    """
    folder = make_folder(cache_folder(), "set XDG_CACHE_HOME to another")
    with (folder / "profile.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise DeviceError(
                f"another profile is running (process {file.read().strip() or 'unknown'}), and they would disturb each "
                "other's measurements; wait until it has ended"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
