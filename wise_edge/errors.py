"""The errors that wise-edge raises on purpose, each with the exit code of the command line.

    WiseEdgeError               1  something failed
    ├── UsageError              2  bad input: an argument, image, query, config or path
    ├── MissingExtraError       3  an optional package is not installed
    ├── DeviceError             4  this device cannot do what was asked
    ├── VerificationError       5  an export does not equal its checkpoint within the tolerance
    ├── BundleError             1  a bundle is incomplete, altered, unsafe or too new
    └── QueryCancelledError     1  a query was cancelled by its own caller

A message is one line and says what to do about it. Anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class WiseEdgeError(Exception):
    """Base of every error that the user can act on."""

    exit_code: ClassVar[int] = 1


class UsageError(WiseEdgeError):
    """The input is at fault: an argument, an image, a query, a config or a path."""

    exit_code = 2


class MissingExtraError(WiseEdgeError):
    """An optional package is needed and not installed.

    Args:
        module: import name of the package, for example "onnxruntime".
        extra: the extra of wise-edge that installs it, for example "onnx".
    """

    exit_code = 3

    def __init__(self, module: str, extra: str) -> None:
        self.module = module
        self.extra = extra
        super().__init__(f"{module} is not installed; run: pip install 'wise-edge[{extra}]'")


class DeviceError(WiseEdgeError):
    """This device, or the build of a package on it, cannot do what was asked."""

    exit_code = 4


class VerificationError(WiseEdgeError):
    """An exported model differs from its checkpoint by more than the tolerance."""

    exit_code = 5


class BundleError(WiseEdgeError):
    """A bundle is incomplete, altered, names a path outside of itself or has a newer schema."""


class QueryCancelledError(WiseEdgeError):
    """A query ended because its caller cancelled it; the session goes on."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a message of ours; the error's class where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
