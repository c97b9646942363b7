"""Temporary files that a killed process leaves: where they lie, and who removes them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.locks import holding

_PREFIX, _SUFFIX = "wise-edge-", ".tmp"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder in $TMPDIR, which is removed at the end; those of killed processes are removed first.

    Raises:
        OSError: there is no folder for temporary files, or it cannot be written.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(UsageError, OSError), holding(left) as held:  # not what another process uses, or another user's
            if held:
                shutil.rmtree(left)
    with ExitStack() as stack:
        folder = _make_held(place, stack)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make_held(place: Path, stack: ExitStack) -> Path:
    while True:
        folder = Path(tempfile.mkdtemp(dir=place, prefix=_PREFIX, suffix=_SUFFIX))
        try:
            stack.enter_context(holding(folder))
        except (UsageError, FileNotFoundError):  # another process took it for one that was left
            continue
        return folder


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Have libraries make their temporary files in a folder that is removed after a kill too, instead of $TMPDIR."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
