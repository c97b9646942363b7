"""The process of the `wise-edge` command, for the console script and `python -m wise_edge`.

It is apart from `wise_edge.cli.main`, whose imports take most of a short command's time: Ctrl-C and SIGTERM must end
the process quietly during these, so almost nothing is imported before. What Python itself does first is beyond reach.
"""

from __future__ import annotations

import io
import os
import signal
import sys

from wise_edge import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

    Handler = Callable[[int, FrameType | None], object]


def run_main() -> NoReturn:
    """Run the arguments of the process and exit.

    Ctrl-C and SIGTERM end a command like an error, so that half-written folders are removed; the exit code is then 130
    or 143. Before and after the command there is nothing to remove, and the process ends at once.
    """
    _handle(_exit_at_once, _exit_at_once)
    for name, raw in (("stdout", _Stdout), ("stderr", _Stderr)):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, _wrap(stream, raw))
    _open_closed_streams()
    from wise_edge.cli.main import flush_stdout, main, print_error

    _handle(signal.default_int_handler, lambda number, _: sys.exit(128 + number))
    code = main()
    if (reason := flush_stdout()) and code == 0:
        print_error(f"error: {reason}")
        code = 1
    _handle(_exit_at_once, _exit_at_once)
    sys.exit(code)


class _Stdout(io.FileIO):
    """stdout, whose errors name it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "stdout"
            raise


class _Stderr(io.FileIO):
    """stderr, which drops what cannot be written: work does not end since its progress cannot be told."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # a full disk, or a reader that is gone
            return len(data)


def _wrap(stream: Any, raw: type[io.FileIO]) -> io.TextIOWrapper:
    file: Any = raw(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        file if stream.write_through else io.BufferedWriter(file),  # as Python does itself, unbuffered with -u
        encoding=stream.encoding,
        errors="backslashreplace",  # a query in an ASCII locale, a path that is no text
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_closed_streams() -> None:
    """Open the streams that the parent closed (`>&-`) on /dev/null.

    Python has None for them, and the next file that is opened would get their number, to which libraries in C print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the process ends)


def _exit_at_once(number: int, _: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _handle(interrupt: Handler, terminate: Handler) -> None:
    """Set what SIGINT and SIGTERM do, unless the parent process had them ignored, as nohup and `&` in scripts do."""
    for number, handler in ((signal.SIGINT, interrupt), (signal.SIGTERM, terminate)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


if __name__ == "__main__":
    run_main()
