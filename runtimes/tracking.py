"""Following objects through the frames of a camera, with a policy that is slower than it.

Three things run at once. Frames arrive, and only the newest one waits (`NewestFrame`, a queue of one, so that a slow
consumer does not grow memory). The policy grounds the query at its own pace, always on the newest frame. In between,
the segmenter follows at the camera's pace: its prompt for each object is the box around the last mask, with the points
moved along. A grounding is as old as the time that it took; if a followed box agrees with it on its own frame, the
grounding is moved by what was followed since. If the policy finds nothing, nothing is followed until it does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_image, check_number, describe
from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.geometry import Point, Size
from wise_edge.policy.prompts import normalize_query
from wise_edge.runtimes.following import Follower
from wise_edge.runtimes.results import Findings, SegmentationResult, SegmentedObject

if TYPE_CHECKING:
    from wise_edge.runtimes.session import Session

_LONGEST_GAP_S = 3600.0
"""Between two frames of a recording: a stamp of 0 before one since 1970 would be waited for, for decades."""
_Ask = Callable[[npt.NDArray[np.uint8]], SegmentationResult]
_LOOK_S = 0.1  # how often a waiting thread checks whether it was cancelled


@dataclass(frozen=True, eq=False)
class Stamped:
    """A frame of a camera and its time.

    Attributes:
        image: HWC uint8 RGB, any size, which may change from frame to frame.
        stamp_s: when it was taken, in seconds of any clock that never runs backwards.
    """

    image: npt.NDArray[np.uint8]
    stamp_s: float

    def __post_init__(self) -> None:
        """Raise `UsageError` for an image or a time that is none."""
        check_image(self.image)
        check_number(self.stamp_s, "stamp_s")


@dataclass(frozen=True, eq=False)
class Tracked(Findings):
    """What is known of the objects on one frame.

    Attributes:
        query: what is followed.
        frame: the frame itself; boxes and masks are in its pixels.
        objects: by their numbers; empty if the policy's last answer names nothing, or nothing of it is there any more.
        reason: why the policy's last answer could not be read; None if it could.
        image_size: (width, height) of the frame in pixels.
        grounding: the policy's last answer, which this is based on.
        grounded_frame: the frame that the answer is about.
        dropped: number of frames before this one that have no result.
    """

    query: str
    frame: Stamped
    objects: tuple[SegmentedObject, ...]
    reason: str | None
    image_size: Size
    grounding: SegmentationResult
    grounded_frame: Stamped
    dropped: int

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The frame's image, HWC uint8 RGB."""
        return self.frame.image

    @property
    def points(self) -> tuple[Point, ...]:
        """The first object's points; empty without an object."""
        return super().points or ()

    @property
    def grounded_stamp_s(self) -> float:
        """When the frame that the policy saw was taken."""
        return self.grounded_frame.stamp_s

    @property
    def stamp_s(self) -> float:
        """When the frame was taken."""
        return self.frame.stamp_s

    @property
    def stale(self) -> bool:
        """Whether the policy saw an earlier frame, not this one."""
        return self.grounded_frame is not self.frame

    @property
    def age_s(self) -> float:
        """How much older the frame that the policy saw is."""
        return self.stamp_s - self.grounded_stamp_s


class NewestFrame:
    """The one place where a camera's frame waits; a newer frame replaces it.

    Attributes:
        changed: guards the other attributes; notified when one of them changes.
        frame: the newest frame; None before the first.
        place: its number among all frames that arrived, from 1; 0 before the first.
        over: whether no further frame will come.
        error: what the camera failed with; None if it did not.
    """

    def __init__(self) -> None:
        self.changed = Condition()
        self.frame: Stamped | None = None
        self.place = 0
        self.over = False
        self.error: BaseException | None = None

    def put(self, frame: Stamped) -> None:
        """Replace the frame that waits; returns at once."""
        with self.changed:
            self.place, self.frame = self.place + 1, frame
            self.changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Say that no further frame will come, because of an error if one is given."""
        with self.changed:
            self.over, self.error = True, error
            self.changed.notify_all()


def track(
    session: Session,
    frames: Iterable[Stamped] | NewestFrame,
    query: str,
    variant: str | None = None,
    *,
    deadline_ms: float | None = None,
    ground_every_s: float | None = None,
    cancel: Event | None = None,
) -> Iterator[Tracked]:
    """Follow what a query names, always on the newest frame, or on every frame of a recording.

    Arguments are checked at the call; the work begins with the first result that is asked for.

    Args:
        session: runs policy and segmenter; others may use it meanwhile.
        frames: an iterable is read by a thread of its own, as fast as frames come: a camera waits for its next frame.
            Pass a recording through `at_recorded_pace` to see it as it was, or set `ground_every_s` to lose none of
            it. A `NewestFrame` is filled by the caller; tracking begins with the frame that waits there.
        query: what to find, in words.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: chooses the variant of each grounding instead, and its pixels, as in `Session.segment`.
        ground_every_s: a recording: every frame waits its turn, and the policy is asked on the first one and whenever
            so many seconds of the frames' stamps have passed, so that the results do not depend on this machine's
            speed. Not with a `NewestFrame`.
        cancel: set from another thread, it ends the tracking; so does closing the iterator.

    Yields:
        From the first grounding on, a result for each frame that there was time for, and a second one for a frame
        that is still the newest when its own grounding arrives. So the last result is grounded on the last frame. With
        `ground_every_s` one result for each frame.

    Raises:
        UsageError: an argument is wrong, or something else than a `Stamped` comes from `frames`.
        WiseEdgeError: policy or segmenter failed. Whatever reading `frames` raises is raised too.
    """
    session.check_choice(variant, deadline_ms)
    if not isinstance(frames, Iterable | NewestFrame) or isinstance(frames, np.ndarray | str):
        raise UsageError(f"frames must be an iterable of Stamped(image, stamp_s), got {describe(frames)}")
    query = normalize_query(query)
    if ground_every_s is None:
        return _follow(session, frames, query, variant, deadline_ms, cancel)
    check_number(ground_every_s, "ground_every_s")
    if isinstance(frames, NewestFrame):
        raise UsageError("frames is a NewestFrame, which drops frames; do not pass ground_every_s")
    if ground_every_s < 0:
        raise UsageError(f"ground_every_s must be at least 0, got {describe(ground_every_s)}")
    ask = partial(session.segment, query=query, variant=variant, deadline_ms=deadline_ms, cancel=cancel)
    return _follow_each(session, frames, ask, ground_every_s, cancel or Event())


def _follow_each(
    session: Session, frames: Iterable[Stamped], ask: _Ask, ground_every_s: float, cancel: Event
) -> Iterator[Tracked]:
    follower = Follower(session)
    for frame in map(_check_stamped, frames):
        if cancel.is_set():
            return
        grounding = follower.grounding
        if grounding is None or not 0 <= frame.stamp_s - grounding.frame.stamp_s < ground_every_s:
            try:
                grounding = Grounding(frame, ask(frame.image))
            except QueryCancelledError:
                return
            follower.reground(grounding)
        yield _track_one(follower, grounding, frame, 0)


def _follow(
    session: Session,
    frames: Iterable[Stamped] | NewestFrame,
    query: str,
    variant: str | None,
    deadline_ms: float | None,
    cancel: Event | None,
) -> Iterator[Tracked]:
    stop = Event()
    newest = frames if isinstance(frames, NewestFrame) else NewestFrame()
    board = _Board(newest)
    seen = reported = max(0, newest.place - 1)
    ask = partial(session.segment, query=query, variant=variant, deadline_ms=deadline_ms, cancel=stop)
    grounder = Thread(target=_ground, args=(ask, board, seen, stop), name="grounding")
    follower = Follower(session)
    if not isinstance(frames, NewestFrame):  # a daemon: it may wait for a frame forever
        Thread(target=_read, args=(frames, newest, stop), name="frames", daemon=True).start()
    grounder.start()
    try:
        while cancel is None or not cancel.is_set():
            news = board.wait(seen)
            seen = news.place
            if news.grounding is not None:
                follower.reground(news.grounding)
            if news.frame is None or follower.grounding is None:
                if news.over:
                    return
                continue
            is_new = news.place > reported
            if is_new or (news.grounding is not None and news.grounding.frame is news.frame):
                dropped = news.place - reported - 1 if is_new else 0
                reported = news.place
                yield _track_one(follower, follower.grounding, news.frame, dropped)
            elif news.over:
                return
    finally:
        stop.set()
        grounder.join()


def at_recorded_pace(
    frames: Iterable[Stamped],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Stamped]:
    """Yield the frames of a recording when a camera would have: spaced like their stamps.

    Raises:
        UsageError: something else than a `Stamped` comes, or a stamp is over `_LONGEST_GAP_S` later than the last one.
    """
    begun: tuple[float, float] | None = None
    before_s = math.inf
    for frame in map(_check_stamped, frames):
        if frame.stamp_s - before_s > _LONGEST_GAP_S:
            raise UsageError(f"the stamps jump from {before_s:.3f} to {frame.stamp_s:.3f} s; correct them")
        begun, before_s = begun or (clock(), frame.stamp_s), frame.stamp_s
        if (early := frame.stamp_s - begun[1] - (clock() - begun[0])) > 0:
            sleep(early)
        yield frame


@dataclass(frozen=True, eq=False)
class Grounding:
    """The policy's answer on one frame."""

    frame: Stamped
    result: SegmentationResult


@dataclass(frozen=True)
class _News:
    """What is on the board: the newest frame and its number, a new grounding, whether no grounding will follow."""

    place: int
    frame: Stamped | None
    grounding: Grounding | None
    over: bool


class _Board:
    """Where the newest frame, the policy and the follower meet: one frame, one grounding, and what went wrong."""

    def __init__(self, newest: NewestFrame) -> None:
        self._newest, self._changed = newest, newest.changed
        self._grounding: Grounding | None = None
        self._over = False
        self._error: BaseException | None = None

    def put_grounding(self, grounding: Grounding) -> None:
        with self._changed:
            self._grounding = grounding
            self._changed.notify_all()

    def end_grounding(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify_all()

    def wait(self, seen: int) -> _News:
        """Wait a moment for a frame later than `seen` or a grounding; raise what went wrong."""
        newest = self._newest
        with self._changed:
            self._changed.wait_for(
                lambda: newest.place > seen or self._grounding or self._over or newest.error, _LOOK_S
            )
            if (error := newest.error or self._error) is not None:
                raise error
            grounding, self._grounding = self._grounding, None
            return _News(newest.place, newest.frame, grounding, self._over)

    def next_frame(self, seen: int) -> tuple[int, Stamped | None]:
        """Wait a moment for a frame later than `seen`; None if there is none yet, and -1 if there will be none."""
        newest = self._newest
        with self._changed:
            self._changed.wait_for(lambda: newest.place > seen or newest.over, _LOOK_S)
            if newest.place > seen:
                return newest.place, newest.frame
            return -1 if newest.over else seen, None


def _track_one(follower: Follower, grounding: Grounding, frame: Stamped, dropped: int) -> Tracked:
    height, width, _ = frame.image.shape
    answer = grounding.result
    return Tracked(
        query=answer.query,
        frame=frame,
        objects=follower.follow(frame),
        reason=answer.reason,
        image_size=(width, height),
        grounding=answer,
        grounded_frame=grounding.frame,
        dropped=dropped,
    )


def _check_stamped(frame: object) -> Stamped:
    if not isinstance(frame, Stamped):
        raise UsageError(f"frames must yield Stamped(image, stamp_s), got {describe(frame)}")
    return frame


def _read(frames: Iterable[Stamped], newest: NewestFrame, stop: Event) -> None:
    try:
        for frame in frames:
            if stop.is_set():
                break
            newest.put(_check_stamped(frame))
    except BaseException as error:  # whatever it is, it is raised in the caller's thread
        newest.end(error)
    else:
        newest.end()


def _ground(ask: _Ask, board: _Board, seen: int, stop: Event) -> None:
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
