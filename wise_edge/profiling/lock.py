"""One profile at a time: two would measure each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wise_edge.errors import DeviceError
from wise_edge.files import cache_folder


@contextmanager
def running_alone() -> Iterator[None]:
    """Keep other profiles of this user from running meanwhile; raises `DeviceError` where one runs already.

    The kernel lets go of the lock when the process ends, however it does.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "profile.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise DeviceError(
                f"another profile runs here (process {file.read().strip() or 'unknown'}), and each would measure the "
                "other; wait until it has ended"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
