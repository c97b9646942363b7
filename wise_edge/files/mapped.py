"""Large files that stay mapped into memory while a model runs, so that a change of the file changes the model.

llama.cpp maps a GGUF, ONNX Runtime the weights beside a graph that it does not rearrange, numpy a token embedding. A
file that is replaced by a rename stays what it was to them; one that is written in place gives other answers, and one
that is cut ends the process with SIGBUS (mmap(2)). Small files are read instead.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path

from wise_edge.errors import BundleError

MAPPED_ABOVE_BYTES = 64_000_000
"""Files up to this size are read into memory. The token embedding of a policy of 3B has 622 MB in half precision."""


def is_mapped(file: Path) -> bool:
    """Return whether a file is large enough to be mapped instead of read."""
    return file.exists() and file.stat().st_size > MAPPED_ABOVE_BYTES


class MappedFiles:
    """Notices that mapped files were written to.

    Args:
        files: files that were just opened; those that are not mapped are left out.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._held = {os.open(file, os.O_RDONLY): file for file in files if is_mapped(file)}
        weakref.finalize(self, _close, list(self._held))
        self._known = {descriptor: _state(descriptor) for descriptor in self._held}

    def check(self) -> None:
        """Raise `BundleError` if a file was written to, whatever its name leads to by now; it takes microseconds."""
        for descriptor, file in self._held.items():
            if _state(descriptor) != self._known[descriptor]:
                raise BundleError(
                    f"{file} was altered while it is in use: start again, and replace a bundle as a whole "
                    "(export --force, mv), not file by file"
                )


def _state(descriptor: int) -> tuple[int, int] | None:
    """Return size and time of the last change, None if they cannot be told any more (a server of a network folder)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
