"""SIGTERM and SIGINT that end a long command after its current step instead of in the middle of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Received:
    """The last signal that came.

    Attributes:
        number: its number; None if none came.
    """

    number: int | None = None


@contextmanager
def stop_signals_call(stop: Callable[[], None]) -> Iterator[Received]:
    """Call `stop` on SIGTERM and SIGINT inside the block, unless they are ignored; restore the handlers after it."""
    received = Received()

    def handle(number: int, frame: FrameType | None) -> None:
        received.number = number
        stop()

    heeded = [name for name in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(name) is not signal.SIG_IGN]
    handlers = {name: signal.signal(name, handle) for name in heeded}
    try:
        yield received
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
