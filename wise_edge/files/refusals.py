"""What the system refused while a file was read or written, and what to do about it, in one line."""

from __future__ import annotations

import errno
import os
import re

_FULL, _DENIED = "free some space and run it again", "change its permissions or choose another place"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "write to a file system, or raise the limit (ulimit -f), that allows larger files",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "remove the links that lead back to themselves",
    errno.EMFILE: "raise the number of files that a process may open (ulimit -n)",
    errno.EIO: "check the disk (dmesg)",
    errno.ESTALE: "mount the network folder again",
}
"""What to do about errors of the file system, which any access may meet; the rest are told by their own words."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How std::io::Error ends, which safetensors and tokenizers raise as exceptions of their own."""
_CUT = re.compile(r"PytorchStreamWriter|inline_container|^\d+ requested and \d+ written")
"""Incomplete writes of torch.save, a RuntimeError, and of numpy's tofile, an OSError without a number."""


def explain_refusal(error: BaseException, *, place: bool = True) -> str | None:
    """Return what the system refused, where, and what to do about it; None for an error of another kind.

    Args:
        error: what was raised.
        place: whether to name the file.
    """
    number = error.errno if isinstance(error, OSError) and error.strerror else None
    if found := _RUST.search(str(error)):
        number = int(found[1])
    if number is not None:
        names = (error.filename, error.filename2) if place and isinstance(error, OSError) else ()
        places = [os.fsdecode(name)[:200] for name in names if isinstance(name, str | bytes)]
        reason = error.strerror if isinstance(error, OSError) and error.strerror else os.strerror(number)
        what = ": ".join([reason, *places])
        return f"{what}; {remedy}" if (remedy := _REMEDIES.get(number)) else what
    if _CUT.search(str(error)):
        return "not all of it could be written; free some space and run it again"
    if (type(error).__module__, type(error).__name__) == ("sqlite3", "OperationalError"):  # not worth an import
        return f"SQLite says '{error}'; free some space or choose another place"
    return None
