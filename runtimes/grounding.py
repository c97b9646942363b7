"""The policy's answers on frames, and the thread that asks for them while the segmenter follows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.errors import QueryCancelledError
from wise_edge.runtimes.base import MaskImage
from wise_edge.runtimes.results import SegmentationResult

if TYPE_CHECKING:
    from wise_edge.runtimes.tracking import NewestFrame, Stamped

LOOK_S = 0.1
"""How often a waiting thread checks whether it was cancelled."""
Ask = Callable[[npt.NDArray[np.uint8]], SegmentationResult]
AskEncoded = Callable[..., tuple[SegmentationResult, MaskImage | None]]
"""`Session.ground` for one query: takes an image, and `encoded`."""


@dataclass(frozen=True, eq=False)
class Grounding:
    """The policy's answer on one frame.

    Attributes:
        frame: what it is about.
        result: the answer.
        encoded: the frame as the segmenter encoded it, for a memory; None if it did not, or nobody remembers.
    """

    frame: Stamped
    result: SegmentationResult
    encoded: MaskImage | None = None


@dataclass(frozen=True)
class News:
    """What is on the board: the newest frame and its number, a new grounding, whether no grounding will follow."""

    place: int
    frame: Stamped | None
    grounding: Grounding | None
    over: bool


class Board:
    """Where the newest frame, the policy and the follower meet: one frame, one grounding, and what went wrong."""

    def __init__(self, newest: NewestFrame) -> None:
        self._newest, self._changed = newest, newest.changed
        self._grounding: Grounding | None = None
        self._over = False
        self._error: BaseException | None = None

    def put_grounding(self, grounding: Grounding) -> None:
        """Hand an answer over."""
        with self._changed:
            self._grounding = grounding
            self._changed.notify_all()

    def end_grounding(self, error: BaseException | None = None) -> None:
        """Say that no further answer will come, because of an error if one is given."""
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify_all()

    def wait(self, seen: int) -> News:
        """Wait a moment for a frame later than `seen` or a grounding; raise what went wrong."""
        newest = self._newest
        with self._changed:
            self._changed.wait_for(lambda: newest.place > seen or self._grounding or self._over or newest.error, LOOK_S)
            if (error := newest.error or self._error) is not None:
                raise error
            grounding, self._grounding = self._grounding, None
            return News(newest.place, newest.frame, grounding, self._over)

    def next_frame(self, seen: int) -> tuple[int, Stamped | None]:
        """Wait a moment for a frame later than `seen`; None if there is none yet, and -1 if there will be none."""
        newest = self._newest
        with self._changed:
            self._changed.wait_for(lambda: newest.place > seen or newest.over, LOOK_S)
            if newest.place > seen:
                return newest.place, newest.frame
            return -1 if newest.over else seen, None


class Asker:
    """Asks the policy in another thread about frames that are chosen here, one at a time; a context manager.

    Args:
        newest: where frames arrive.
        ask: about a frame, with the frame as the segmenter encoded it, or None.
        stop: set at the end, so that an open question ends.
    """

    def __init__(self, newest: NewestFrame, ask: Callable[[Stamped, MaskImage | None], Grounding], stop: Event) -> None:
        self._newest, self._ask, self._stop = newest, ask, stop
        self._thread = ThreadPoolExecutor(1, "grounding")
        self._pending: Future[Grounding] | None = None

    def __enter__(self) -> Asker:
        """Return it; the thread begins with the first question."""
        return self

    def __exit__(self, *_: object) -> None:
        """End an open question and the thread."""
        self._stop.set()
        self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._pending is not None

    def put(self, frame: Stamped, encoded: MaskImage | None) -> None:
        """Ask about a frame; only if it is not busy."""
        self._pending = self._thread.submit(self._ask, frame, encoded)
        self._pending.add_done_callback(self._wake)

    def wait(self, seen: int) -> News:
        """Wait a moment for a frame later than `seen` or the answer; raise what went wrong."""
        newest, pending = self._newest, self._pending
        with newest.changed:
            newest.changed.wait_for(
                lambda: newest.place > seen or newest.error or (pending.done() if pending else newest.over), LOOK_S
            )
            if newest.error is not None:
                raise newest.error
            place, frame, over = newest.place, newest.frame, newest.over
        grounding = None
        if pending is not None and pending.done():
            grounding, self._pending = pending.result(), None
        return News(place, frame, grounding, over and self._pending is None)

    def _wake(self, _: object) -> None:
        with self._newest.changed:
            self._newest.changed.notify_all()


def ground_encoded(ask: AskEncoded, frame: Stamped, encoded: MaskImage | None) -> Grounding:
    """Ask about a frame, which the segmenter may have encoded already, for a memory."""
    result, encoded = ask(frame.image, encoded=encoded)
    return Grounding(frame, replace(result, image=frame.image), encoded)


def ground_newest(ask: Ask, board: Board, seen: int, stop: Event) -> None:
    """Ask about the newest frame, again and again, until there will be none or `stop` is set."""
    try:
        while seen >= 0 and not stop.is_set():
            seen, frame = board.next_frame(seen)
            if frame is not None:
                # The frame holds an image already; the session's copy of it need not outlive the session's cache.
                board.put_grounding(Grounding(frame, replace(ask(frame.image), image=frame.image)))
    except QueryCancelledError:
        board.end_grounding()
    except BaseException as error:
        board.end_grounding(error)
    else:
        board.end_grounding()
