"""The log of the service: a line for each request, without what was asked and shown, and warnings."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Thread

_MOST_LINES = 1000
_LONGEST_METHOD, _LONGEST_PATH, _LONGEST_ADDRESS = 20, 200, 60
_CLOSE_S = 1.0
_STORED = re.compile("/v1/frames/[^/]+")


@dataclass(frozen=True)
class Served:
    """A request that was answered, or whose client left.

    Attributes:
        client: its address; behind a trusted proxy the one that the proxy names.
        method: of the request, such as "POST".
        path: as it was requested, without what follows a question mark.
        route: as the application declares it, such as "/v1/frames/{frame}"; None if no route was found.
        status: of the response; 0 without one.
        ms: from the request's head to the end of its response.
        sent_bytes: of the response's body.
    """

    client: str
    method: str
    path: str
    route: str | None
    status: int
    ms: float
    sent_bytes: int

    def to_line(self) -> str:
        """Return a line for the log; it names no stored image, since who knows the name may query it."""
        path = self.route or _STORED.sub("/v1/frames/{frame}", self.path)[:_LONGEST_PATH]
        status = self.status or "-"
        client = re.sub(r"[^\w.:%-]", "?", self.client)[:_LONGEST_ADDRESS]  # a proxy may name anything
        method = self.method[:_LONGEST_METHOD]
        return f"{client or '-'} {method} {path} {status} {self.ms:.1f} ms {self.sent_bytes} bytes"


class Log:
    """Writes lines in its own thread, since a terminal or pipe that takes no more would stop the event loop.

    Lines beyond a thousand that wait are left out, and their number is written instead.

    Args:
        write: takes a line without its end.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: Queue[str | None] = Queue(_MOST_LINES)
        self._lost = 0
        self._thread = Thread(target=self._work, name="log", daemon=True)  # a pipe that hangs keeps no process
        self._thread.start()

    def add(self, line: str) -> None:
        """Write a line, with the time in UTC before it."""
        try:
            self._lines.put_nowait(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}")
        except Full:
            self._lost += 1

    def add_request(self, served: Served) -> None:
        """Write the line of a request."""
        self.add(served.to_line())

    def take_over(self) -> None:
        """Write the warnings of all of Python's loggers, too, in place of the handlers that they have."""
        handler = _Handler(self)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logging.getLogger().handlers = [handler]
        for name in ("uvicorn", "uvicorn.error"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is wrong with a form is told its client

    def close(self) -> None:
        """Write the lines that wait, unless nobody takes them."""
        try:
            self._lines.put(None, timeout=_CLOSE_S)
        except Full:
            return
        self._thread.join(_CLOSE_S)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
            if self._lost:
                lost, self._lost = self._lost, 0
                self._write(f"{lost} lines of this log were dropped: they were not read in time")


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.add(self.format(record))


def write_to_stderr(line: str) -> None:
    """Write a line past Python's buffer, whose lock a write that hangs would hold."""
    with suppress(OSError):  # the terminal or pipe is gone
        os.write(2, f"{line}\n".encode())
