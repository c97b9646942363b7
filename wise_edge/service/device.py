"""One device for many clients: queries wait in line, the first that came first, and more than a few are sent away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from wise_edge.errors import QueryCancelledError, WiseEdgeError
from wise_edge.service.limits import Limits

T = TypeVar("T")


class BusyError(WiseEdgeError):
    """More queries wait than may.

    Args:
        retry_after_s: when to come again, by what queries took lately.
    """

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the device is busy; come again in {retry_after_s} s")


class LateError(WiseEdgeError):
    """A query took longer than it may."""


class Device:
    """Runs one query at a time, in a thread of its own that takes the next one without asking the event loop.

    Args:
        limits: how many may wait, and how long each may take.

    Attributes:
        waiting: queries that wait or run.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "device")  # takes them in the order in which they came
        self._took_s = 0.1
        self.waiting = 0

    async def run(self, work: Callable[[Event], T]) -> T:
        """Run a query once those before it are done.

        Args:
            work: the query; ends soon after the event that it is given is set.

        Raises:
            BusyError: too many wait.
            LateError: it took too long.
        """
        self.check_room()
        cancel = Event()
        self.waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._do, work, cancel)
        running.add_done_callback(self._end)
        try:
            return await asyncio.wait_for(asyncio.shield(running), self._limits.query_s)
        except asyncio.TimeoutError:
            raise LateError(f"the query was not answered within {self._limits.query_s:g} s") from None
        finally:  # a client that went away cancels it too
            cancel.set()

    def check_room(self) -> None:
        """Raise `BusyError` where too many wait already."""
        if self.waiting > self._limits.waiting:
            raise BusyError(max(1, round(self.waiting * self._took_s)))

    def close(self) -> None:
        """End the thread once its queries are done."""
        self._thread.shutdown()

    def _do(self, work: Callable[[Event], T], cancel: Event) -> T:
        if cancel.is_set():
            raise QueryCancelledError("nobody waits for this query any more")
        began_s = time.perf_counter()
        try:
            return work(cancel)
        finally:
            self._took_s += 0.2 * (time.perf_counter() - began_s - self._took_s)

    def _end(self, running: asyncio.Future[T]) -> None:
        self.waiting -= 1
        if not running.cancelled():
            running.exception()  # it is known, though nobody may wait for it any more
