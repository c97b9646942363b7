"""SIGTERM and SIGINT that end a training after its current step instead of in the middle of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT inside the block; restore the handlers after it."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    handlers = {name: signal.signal(name, handle) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
