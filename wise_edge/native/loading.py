"""The guard round every library that reads a file of a user: whatever it raises becomes one line."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wise_edge.errors import UsageError, WiseEdgeError

COPY = "copy or download it again"
_LONGEST_REASON = 160  # characters of a library's message, which may hold a page
_RUST_PANIC = "PanicException"
"""What libraries in Rust raise where they are wrong; it derives from BaseException, and each library has its own
(https://pyo3.rs/main/doc/pyo3/panic/struct.panicexception)."""
_LARGE = 1 << 20  # bytes
_NOT_MAPPED = "failed to map segment from shared object"
"""What glibc's loader says where memory is limited (`ulimit -v`)."""


@contextmanager
def loading(
    file: Path | str, expected: str, remedy: str = COPY, *, error: type[WiseEdgeError] = UsageError
) -> Iterator[None]:
    """Turn what a library raises for a file that it cannot read into one line.

    It cannot help where a library ends the process or asks for all memory: sizes are to be checked before.

    Args:
        file: the file, or what the message calls it.
        expected: what the file should be, with its article: "a tokenizer".
        remedy: what to do.
        error: the class to raise: `BundleError` for a file of a bundle.

    Raises:
        WiseEdgeError: of that class; one that the block raises itself stays as it is.
        MemoryError: a library has no room to be loaded, which is no fault of the file.
    """
    try:
        yield
    except WiseEdgeError:
        raise
    except BaseException as failure:
        if not isinstance(failure, Exception) and type(failure).__name__ != _RUST_PANIC:
            raise  # an interrupt, or the end of the process
        if _NOT_MAPPED in str(failure):  # of a library that is imported to read the file
            raise MemoryError(name_reason(failure)) from failure
        raise error(
            f"{file} is not {expected}, or it is damaged or cut short ({name_reason(failure)}); {remedy}"
        ) from failure


def name_reason(failure: BaseException) -> str:
    """Return a library's reason as the part of a line."""
    if isinstance(failure, MemoryError):
        return "it asks for more memory than is free"
    if isinstance(failure, RecursionError):
        return "it is nested too deeply"
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror
    reason = " ".join(str(failure).split()) or type(failure).__name__
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


class BoundedFile(io.BufferedReader):
    """A file whose reads never ask for more memory than it has bytes left, whatever a length in it says.

    Args:
        file: to open for reading.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(io.FileIO(file))

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, at most `size`."""
        if size is not None and size > _LARGE:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)
