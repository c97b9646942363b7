"""The errors that wise-edge raises on purpose, each with the exit code of the command line.

    WiseEdgeError               1  something failed
    ├── UsageError              2  bad input: an argument, image, query, config or path
    ├── MissingExtraError       3  an optional package is not installed
    ├── DeviceError             4  this device cannot do what was asked
    ├── VerificationError       5  a check failed: of an export, a bundle's files or a profile's regression
    ├── BundleError             1  a bundle is incomplete, altered, unsafe or too new
    └── QueryCancelledError     1  a query was cancelled by its own caller

A message is one line that says what is wrong and what to do; what it quotes of the input cannot make it more. Any other
exception that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar

_KEPT_END = 200
"""Characters of a long message that say what to do."""


class WiseEdgeError(Exception):
    """Base of every error that the user can act on."""

    exit_code: ClassVar[int] = 1
    longest: ClassVar[int] = 1000
    """Characters of a message; the middle of a longer one is left out."""

    def __str__(self) -> str:
        """Return the message as one line that a terminal can show."""
        return one_line(super().__str__(), self.longest)


class UsageError(WiseEdgeError):
    """The input is invalid: an argument, an image, a query, a config or a path."""

    exit_code = 2


class MissingExtraError(WiseEdgeError):
    """A required optional package is not installed.

    Args:
        module: import name of the package, for example "onnxruntime".
        extra: the extra of wise-edge that installs it, for example "onnx".
        remedy: what to do, if pip's line for the extra is not enough.
    """

    exit_code = 3

    def __init__(self, module: str, extra: str, remedy: str = "") -> None:
        from wise_edge.extras import find_python_lack  # which imports this module

        self.module = module
        self.extra = extra
        remedy = remedy or find_python_lack(extra) or f"run: pip install 'wise-edge[{extra}]'"
        super().__init__(f"{module} is not installed; {remedy}")


class DeviceError(WiseEdgeError):
    """This device, or the build of a package on it, cannot do what was asked."""

    exit_code = 4


class VerificationError(WiseEdgeError):
    """What a check looked for was found: an export differs from its checkpoint, a bundle's files from their hashes."""

    exit_code = 5
    longest = 10_000  # it names all that was found


class BundleError(WiseEdgeError):
    """A bundle is incomplete or altered, names a path outside itself, or has an unsupported schema."""


class QueryCancelledError(WiseEdgeError):
    """A query ended because its caller cancelled it; the session can be used further."""


def one_line(message: str, longest: int = WiseEdgeError.longest) -> str:
    """Return a message as one line that a terminal can show, without its middle if it has more characters."""
    if not message.isprintable():
        message = "".join(map(_printable, message))
    if len(message) > longest:
        message = f"{message[: longest - _KEPT_END - 3]} … {message[-_KEPT_END:]}"
    return message


def _printable(character: str) -> str:
    """Return a space for a line break, and an escape for what else steers a terminal or is no character."""
    if character.isprintable() or character.isspace():
        return character if character.isprintable() else " "
    return character.encode("unicode_escape").decode("ascii")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty; the name of its class if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
