"""Following objects through the frames of a camera, with a policy that is slower than it.

Three things run at once. Frames arrive, and only the newest one waits (`NewestFrame`, a queue of one, so that a slow
consumer does not grow memory). The policy grounds the query at its own pace, always on the newest frame. In between,
the segmenter follows at the camera's pace: its prompt for each object is the box around the last mask, with the points
moved along. A grounding is as old as the time that it took; if a followed box agrees with it on its own frame, the
grounding is moved by what was followed since. If the policy finds nothing, nothing is followed until it does.

With a memory (`wise_edge.runtimes.remembering`) the segmenter follows objects by what they looked like, and the policy
is asked when something is lost, and now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_image, check_number, describe
from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.geometry import Point, Size
from wise_edge.policy.prompts import normalize_query
from wise_edge.runtimes.following import Follower, Pace
from wise_edge.runtimes.grounding import AskEncoded, Asker, Board, Grounding, ground_encoded, ground_newest
from wise_edge.runtimes.objects import HiddenObject, SegmentedObject
from wise_edge.runtimes.remembering import MemoryFollower
from wise_edge.runtimes.results import Findings, SegmentationResult

if TYPE_CHECKING:
    from wise_edge.runtimes.session import Session

_LONGEST_GAP_S = 3600.0
"""Between two frames of a recording: a stamp of 0 before one since 1970 would be waited for, for decades."""
_DOUBT_S = 0.5
"""With a memory: after it was asked, the policy is left alone for so long although something is lost."""
_LIVE_EVERY_S = 1.0
"""With a memory, of a camera: the policy is asked so often although nothing is lost."""


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
        hidden: objects that are followed and not visible on the frame, by their numbers; None without a memory.
    """

    query: str
    frame: Stamped
    objects: tuple[SegmentedObject, ...]
    reason: str | None
    image_size: Size
    grounding: SegmentationResult
    grounded_frame: Stamped
    dropped: int
    hidden: tuple[HiddenObject, ...] | None = None

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
    memory: bool = False,
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
        memory: follow with the segmenter's memory of earlier frames, which says when an object is hidden and finds it
            again. Then the policy is asked when something is lost or has a poor mask, but not within half a second of
            the last time (or `ground_every_s`, if that is shorter), and otherwise every `ground_every_s`. Of a camera
            that is every second, and the policy rests for as long as it took; while nothing is found, it does not.
        cancel: set from another thread, it ends the tracking; so does closing the iterator.

    Yields:
        From the first grounding on, a result for each frame that there was time for, and a second one for a frame
        that is still the newest when its own grounding arrives. So the last result is grounded on the last frame. With
        `ground_every_s` one result for each frame. With a memory a frame also has a second result if a late grounding
        changes what is followed on it, and the last frame need not be grounded.

    Raises:
        UsageError: an argument is wrong, something else than a `Stamped` comes from `frames`, or the segmenter has no
            memory.
        WiseEdgeError: policy or segmenter failed. Whatever reading `frames` raises is raised too.
    """
    session.check_choice(variant, deadline_ms)
    if not isinstance(frames, Iterable | NewestFrame) or isinstance(frames, np.ndarray | str):
        raise UsageError(f"frames must be an iterable of Stamped(image, stamp_s), got {describe(frames)}")
    query = normalize_query(query)
    if not isinstance(memory, bool):
        raise UsageError(f"memory must be True or False, got {describe(memory)}")
    segment = partial(session.segment, query=query, variant=variant, deadline_ms=deadline_ms)
    ground = partial(session.ground, query=query, variant=variant, deadline_ms=deadline_ms)
    if ground_every_s is None:
        if memory:
            return _remember(frames, ground, MemoryFollower(session.open_memory()), cancel)
        return _follow(session, frames, segment, cancel)
    check_number(ground_every_s, "ground_every_s")
    if isinstance(frames, NewestFrame):
        raise UsageError("frames is a NewestFrame, which drops frames; do not pass ground_every_s")
    if ground_every_s < 0:
        raise UsageError(f"ground_every_s must be at least 0, got {describe(ground_every_s)}")
    pace = Pace(ground_every_s, min(ground_every_s, _DOUBT_S), ground_every_s)
    if memory:
        remembering = MemoryFollower(session.open_memory())

        def recall(frame: Stamped) -> Grounding:
            return ground_encoded(partial(ground, cancel=cancel), frame, remembering.begin_grounding(frame))

        return _follow_each(remembering, frames, recall, pace, cancel or Event())
    return _follow_each(
        Follower(session),
        frames,
        lambda frame: Grounding(frame, segment(frame.image, cancel=cancel)),
        pace,
        cancel or Event(),
    )


def _follow_each(
    follower: Follower | MemoryFollower,
    frames: Iterable[Stamped],
    ask: Callable[[Stamped], Grounding],
    pace: Pace,
    cancel: Event,
) -> Iterator[Tracked]:
    for frame in map(_check_stamped, frames):
        if cancel.is_set():
            return
        if follower.wants_grounding(frame, pace):
            try:
                follower.reground(ask(frame))
            except QueryCancelledError:
                return
        yield _track_one(follower, frame, 0)


def _follow(
    session: Session,
    frames: Iterable[Stamped] | NewestFrame,
    segment: Callable[..., SegmentationResult],
    cancel: Event | None,
) -> Iterator[Tracked]:
    stop = Event()
    newest = frames if isinstance(frames, NewestFrame) else NewestFrame()
    board = Board(newest)
    seen = reported = max(0, newest.place - 1)
    ask = partial(segment, cancel=stop)
    grounder = Thread(target=ground_newest, args=(ask, board, seen, stop), name="grounding")
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
                yield _track_one(follower, news.frame, dropped)
            elif news.over:
                return
    finally:
        stop.set()
        grounder.join()


def _remember(
    frames: Iterable[Stamped] | NewestFrame,
    ground: AskEncoded,
    follower: MemoryFollower,
    cancel: Event | None,
) -> Iterator[Tracked]:
    """Follow a camera with a memory; another thread asks the policy when the follower wants it."""
    stop, took_s = Event(), 0.0
    newest = frames if isinstance(frames, NewestFrame) else NewestFrame()
    seen = reported = max(0, newest.place - 1)
    ask = partial(ground_encoded, partial(ground, cancel=stop))
    if not isinstance(frames, NewestFrame):  # a daemon: it may wait for a frame forever
        Thread(target=_read, args=(frames, newest, stop), name="frames", daemon=True).start()
    with Asker(newest, ask, stop) as asker:
        while cancel is None or not cancel.is_set():
            news = asker.wait(seen)
            seen = news.place
            if (frame := news.frame) is None:
                if news.over:
                    return
                continue
            changed = False
            if news.grounding is not None:
                took_s = frame.stamp_s - news.grounding.frame.stamp_s
                changed = follower.reground(news.grounding)
            pace = Pace(max(_LIVE_EVERY_S, 2 * took_s), max(_DOUBT_S, 2 * took_s), 0.0)
            if not asker.busy and follower.wants_grounding(frame, pace):
                asker.put(frame, follower.begin_grounding(frame))
            is_new = news.place > reported
            if follower.grounding is not None and (is_new or changed):
                dropped = news.place - reported - 1 if is_new else 0
                reported = news.place
                yield _track_one(follower, frame, dropped)
            elif news.over and not asker.busy:
                return


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


def _track_one(follower: Follower | MemoryFollower, frame: Stamped, dropped: int) -> Tracked:
    height, width, _ = frame.image.shape
    objects, grounding = follower.follow(frame), follower.grounding
    if grounding is None:
        raise RuntimeError("a frame is told of before the policy answered")
    answer = grounding.result
    return Tracked(
        query=answer.query,
        frame=frame,
        objects=objects,
        reason=answer.reason,
        image_size=(width, height),
        grounding=answer,
        grounded_frame=grounding.frame,
        dropped=dropped,
        hidden=follower.hidden,
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
