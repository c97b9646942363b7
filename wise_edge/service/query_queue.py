"""One device for many clients: clients take turns, and queries beyond a limit are rejected.

Scheduling is round robin over clients: each turn answers one query of one client, in the order in which that client
sent them. So a client that sends many queries does not delay the others, and no client may fill the whole queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeVar

from wise_edge.errors import QueryCancelledError, WiseEdgeError
from wise_edge.service.limits import Limits

T = TypeVar("T")
_LEFT = "nobody is waiting for this query any more"


class BusyError(WiseEdgeError):
    """Too many queries wait.

    Args:
        retry_after_s: when to retry, estimated from the time that recent queries took.
    """

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the device is busy; retry in {retry_after_s} s")


class LateError(WiseEdgeError):
    """A query exceeded its time limit."""


class QueryQueue:
    """Runs one query at a time, in its own thread, which takes the next one without the event loop.

    Args:
        limits: how many queries may wait, and how long each may take.

    Attributes:
        waiting: queries that wait or run.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns: SimpleQueue[bool] = SimpleQueue()  # False ends the thread
        self._thread = Thread(target=self._serve, name="device", daemon=True)  # a query that hangs keeps no process
        self._lines = _Lines()
        self._own: Counter[str] = Counter()  # queries of each client that wait or run
        self._took_s = 0.1
        self.waiting = 0
        self._thread.start()

    async def run(self, work: Callable[[Event], T], client: str = "") -> T:
        """Run a query when its client's turn comes.

        Args:
            work: the query; it ends soon after the event that it receives is set.
            client: who sent it.

        Raises:
            BusyError: too many queries wait.
            LateError: the query took too long.
        """
        self.check_room(client)
        cancel, done = Event(), Future[T]()
        job = partial(self._do, work, cancel, done)
        self.waiting += 1
        self._own[client] += 1
        self._lines.add(client, job)
        self._turns.put(True)
        running = asyncio.wrap_future(done)
        running.add_done_callback(partial(self._end, client))
        try:
            return await asyncio.wait_for(asyncio.shield(running), self._limits.query_s)
        except asyncio.TimeoutError:
            raise LateError(f"the query was not answered within {self._limits.query_s:g} s") from None
        finally:  # also if the client disconnected
            cancel.set()
            if self._lines.drop(client, job):  # which frees its place for others
                done.set_exception(QueryCancelledError(_LEFT))

    def check_room(self, client: str = "", coming: int = 0) -> None:
        """Raise `BusyError` if too many queries wait, of this client or of all.

        Args:
            client: who sends the query.
            coming: queries whose images are being decoded.
        """
        waiting = self.waiting + coming
        if waiting > self._limits.waiting or self._own[client] > self._limits.share(self._limits.waiting):
            raise BusyError(max(1, round(waiting * self._took_s)))

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop the thread once its queries are done; return whether that was in time."""
        self._turns.put(False)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while self._turns.get():
            if (job := self._lines.take()) is not None:
                job()

    def _do(self, work: Callable[[Event], T], cancel: Event, done: Future[T]) -> None:
        if cancel.is_set():
            done.set_exception(QueryCancelledError(_LEFT))
            return
        began_s = time.perf_counter()
        try:
            done.set_result(work(cancel))
        except BaseException as error:  # raised where the query is awaited
            done.set_exception(error)
        self._took_s += 0.2 * (time.perf_counter() - began_s - self._took_s)

    def _end(self, client: str, running: asyncio.Future[T]) -> None:
        self.waiting -= 1
        self._own -= Counter((client,))  # subtraction drops clients that have none
        if not running.cancelled():
            running.exception()  # retrieved, so that asyncio does not warn if nobody awaits it


class _Lines:
    """A line of jobs for each client; the client served last goes to the end."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lines: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()

    def add(self, client: str, job: Callable[[], None]) -> None:
        """Append a job to a client's line."""
        with self._lock:
            self._lines.setdefault(client, deque()).append(job)

    def take(self) -> Callable[[], None] | None:
        """Return the next client's first job; None if those that waited were dropped."""
        with self._lock:
            if not self._lines:
                return None
            client, line = self._lines.popitem(last=False)
            job = line.popleft()
            if line:
                self._lines[client] = line
            return job

    def drop(self, client: str, job: Callable[[], None]) -> bool:
        """Remove a job from its client's line; return whether it was still there."""
        with self._lock:
            line = self._lines.get(client, deque())
            if job not in line:
                return False
            line.remove(job)
            if not line:
                del self._lines[client]
            return True
