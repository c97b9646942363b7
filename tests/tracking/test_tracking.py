"""Tracking: the newest frame wins, masks follow between groundings, and nothing waits forever or grows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from queue import Queue

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_session import FakePolicy
from tracking_fakes import SIDE, SeeingMask, make, square_image
from waiting import wait_for
from wise_edge.errors import WiseEdgeError
from wise_edge.geometry import mask_box
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.runtimes.following import Follower, _nearest
from wise_edge.runtimes.grounding import Grounding
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked, at_recorded_pace


class Camera:
    """Frames that a test takes out of its sleeve; waits for the test, as a camera does for the world."""

    def __init__(self) -> None:
        self._frames: Queue[Stamped | None] = Queue()
        self.taken = threading.Semaphore(0)

    def show(self, left: int, stamp_s: float) -> None:
        """Show a frame and return once it is on the board."""
        self._frames.put(Stamped(square_image(left), stamp_s))
        assert self.taken.acquire(timeout=10)

    def end(self) -> None:
        self._frames.put(None)

    def __iter__(self) -> Iterator[Stamped]:
        while (frame := self._frames.get(timeout=10)) is not None:
            yield frame
            self.taken.release()  # the reader asks for the next: this one is on the board


def test_between_groundings_masks_follow_and_a_late_grounding_is_carried_along() -> None:
    session, policy = make()
    camera = Camera()
    results = session.track(camera, "the square")

    policy.allowed.put("answer")
    first = _ask_beside(results, lambda: camera.show(10, 0.0))
    assert (first.box, first.stale, first.dropped) == ((10, 40, 30, 60), False, 0)

    camera.show(14, 1.0)  # the policy looks at this one until it is let
    second = next(results)
    wait_for(lambda: policy.seen == [10, 14])
    followed = []
    for left in (18, 22, 26, 30):
        camera.show(left, float(left))
        followed.append(next(results))
    assert (second.box, second.stale, second.age_s) == ((14, 40, 34, 60), True, 1.0)
    assert [result.box for result in followed] == [(left, 40, left + 20, 60) for left in (18, 22, 26, 30)]
    assert {result.grounded_stamp_s for result in followed} == {0.0}
    assert all(result.mask is not None and mask_box(result.mask) == result.box for result in followed)
    assert all(result.mask[y, x] for result in followed for x, y in result.points if result.mask is not None)

    policy.allowed.put("answer")  # for the frame of 1.0, where the square was 16 pixels to the left
    wait_for(lambda: policy.seen == [10, 14, 30])
    camera.show(34, 34.0)
    late = next(results)
    assert (late.box, late.grounded_stamp_s, late.age_s) == ((34, 40, 54, 60), 1.0, 33.0)

    camera.end()
    for _ in range(3):
        policy.allowed.put("answer")
    rest = list(results)
    assert (rest[-1].stamp_s, rest[-1].stale, rest[-1].box) == (34.0, False, (34, 40, 54, 60))


def _ask_beside(results: Iterator[Tracked], act: object) -> Tracked:
    """Let the tracking begin, and act while it waits for its first frame."""
    found: list[Tracked] = []
    thread = threading.Thread(target=lambda: found.append(next(results)))
    thread.start()
    act()  # type: ignore[operator]
    thread.join(10)
    return found[0]


def test_frames_that_nobody_had_time_for_are_counted_and_let_go() -> None:
    session, policy = make()
    frames = [Stamped(square_image(left), float(left)) for left in range(10, 60)]

    def hurry() -> Iterator[Stamped]:
        yield frames[0]
        wait_for(lambda: policy.seen == [10])
        yield from frames[1:]
        policy.allowed.put("answer")
        policy.allowed.put("answer")

    results = list(session.track(hurry(), "the square"))

    assert policy.seen == [10, 59]  # the newest, not the next
    assert [(result.stamp_s, result.grounded_stamp_s, result.dropped) for result in results][-1][:2] == (59.0, 59.0)
    assert sum(result.dropped for result in results) == 49
    assert results[-1].box == (59, 40, 79, 60)


def test_a_callers_newest_frame_is_where_tracking_begins_and_continues() -> None:
    session, policy = make()
    newest, cancel = NewestFrame(), threading.Event()
    for left in (10, 12, 14):
        newest.put(Stamped(square_image(left), float(left)))
    results = session.track(newest, "the square", cancel=cancel)
    policy.allowed.put("answer")
    first = next(results)
    newest.put(Stamped(square_image(16), 16.0))
    wait_for(lambda: policy.seen == [14, 16])
    second = next(results)
    newest.put(Stamped(square_image(18), 18.0))
    newest.put(Stamped(square_image(20), 20.0))
    third = next(results)
    assert "frames" not in {thread.name for thread in threading.enumerate()}  # nobody copies frames to another place
    cancel.set()
    assert list(results) == []

    assert [(result.stamp_s, result.dropped) for result in (first, second, third)] == [(14, 0), (16, 0), (20, 1)]


def test_a_callers_newest_frame_may_end_with_or_without_an_error() -> None:
    session, _ = make()
    newest = NewestFrame()
    newest.end(OSError("the camera is gone"))
    with pytest.raises(OSError, match="the camera is gone"):
        list(session.track(newest, "the square"))
    newest = NewestFrame()
    newest.end()
    assert list(session.track(newest, "the square")) == []


def test_a_single_frame_is_grounded_and_given_once() -> None:
    session, policy = make()
    policy.allowed.put("answer")

    results = list(session.track([Stamped(square_image(10), 3.0)], "the square"))

    assert [(result.stamp_s, result.stale, result.box) for result in results] == [(3.0, False, (10, 40, 30, 60))]
    assert list(session.track([], "the square")) == []


def test_an_answer_that_names_nothing_ends_the_following() -> None:
    session, policy = make()
    policy.generate = lambda *_: FakePolicy(lambda *_: "I see nothing.").generate(*_)  # type: ignore[method-assign]

    results = list(session.track([Stamped(square_image(10), 0.0)], "the ring"))

    assert [(result.box, result.mask, result.points) for result in results] == [(None, None, ())]
    assert results[0].grounding.reason


def test_a_square_that_hides_is_found_again_where_it_was_lost() -> None:
    session, policy = make()
    camera = Camera()
    results = session.track(camera, "the square")
    policy.allowed.put("answer")
    _ask_beside(results, lambda: camera.show(10, 0.0))
    found = []
    for left, stamp in ((90, 1.0), (12, 2.0)):
        camera.show(left, stamp)
        found.append(next(results))
    results.close()  # type: ignore[attr-defined]
    camera.end()

    assert [result.box for result in found] == [None, (12, 40, 32, 60)]
    assert found[0].mask is not None
    assert not found[0].mask.any()


def test_what_fails_is_raised_where_the_results_are_read() -> None:
    def broken() -> Iterator[Stamped]:
        yield Stamped(square_image(10), 0.0)
        raise OSError("the camera is gone")

    session, policy = make()
    with pytest.raises(OSError, match="the camera is gone"):
        list(session.track(broken(), "the square"))

    session, policy = make()
    policy.allowed.put("the engine failed")
    with pytest.raises(WiseEdgeError, match="the engine failed"):
        list(session.track([Stamped(square_image(10), 0.0)], "the square"))
    policy.allowed.put("answer")
    assert session.segment(square_image(10), "the square").box == (10, 40, 30, 60)


def test_canceling_and_closing_leave_no_thread_behind() -> None:
    session, policy = make()
    for close in (False, True):
        camera, cancel = Camera(), threading.Event()
        results = session.track(camera, "the square", cancel=cancel)
        policy.allowed.put("answer")
        _ask_beside(results, lambda camera=camera: camera.show(10, 0.0))
        camera.show(12, 1.0)
        next(results)
        if close:
            results.close()  # type: ignore[attr-defined]
        else:
            cancel.set()
            assert list(results) == []
        camera.end()
        wait_for(lambda: not {t.name for t in threading.enumerate()} & {"frames", "grounding"})


def test_a_frame_of_another_size_is_taken() -> None:
    session, policy = make()
    large = np.zeros((2 * SIDE, 3 * SIDE, 3), np.uint8)
    large[40:60, 10:30] = 255
    policy.allowed.put("answer")
    camera = Camera()
    results = session.track(camera, "the square")
    _ask_beside(results, lambda: camera.show(10, 0.0))
    camera._frames.put(Stamped(large, 1.0))
    second = next(results)
    results.close()  # type: ignore[attr-defined]
    camera.end()

    assert second.mask is not None
    assert (second.mask.shape, second.box) == (large.shape[:2], (10, 40, 30, 60))


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.integers(-4, 12), st.integers(-4, 12))
def test_a_point_moves_to_the_nearest_pixel_of_the_mask(seed: int, height: int, width: int, x: int, y: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.random()
    mask[rng.integers(height), rng.integers(width)] = True
    rows, columns = np.nonzero(mask)

    left, top = _nearest(mask, (x, y))

    assert mask[top, left]
    assert (left - x) ** 2 + (top - y) ** 2 == ((columns - x) ** 2 + (rows - y) ** 2).min()


def test_a_recording_is_given_at_the_pace_it_was_taken() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    frames = [Stamped(square_image(10), stamp) for stamp in (7.0, 7.5, 9.0)]
    paced = []
    for frame in at_recorded_pace(frames, lambda: now[0], sleep):
        paced.append(now[0])
        now[0] += 0.75  # somebody is slow
        assert frame in frames

    assert paced == [100.0, 100.75, 102.0]
    assert slept == [0.5]


def _squares(*lefts: int) -> npt.NDArray[np.uint8]:
    """Return white squares of 10 pixels on black, one below the other."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for place, left in enumerate(lefts):
        if left >= 0:
            image[10 + 30 * place : 20 + 30 * place, left : left + 10] = 255
    return image


def _list_squares(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
    """Name every square, from the lowest to the highest."""
    boxes = []
    for place in (2, 1, 0):
        columns = np.flatnonzero(image[10 + 30 * place, :, 0])
        if columns.size:
            top = 10 + 30 * place
            boxes.append({"bbox_2d": [int(columns[0]), top, int(columns[-1]) + 1, top + 10], "label": "square"})
    return "```json\n" + json.dumps(boxes) + "\n```"


def _grounding(session: Session, frame: Stamped) -> Grounding:
    return Grounding(frame, session.segment(frame.image, "the squares"))


def _make_lister() -> tuple[Session, Follower]:
    session = Session(FakePolicy(_list_squares, form=BOX_LABEL_LIST), SeeingMask(), {})
    return session, Follower(session)


def test_several_objects_are_followed_at_once_and_keep_their_numbers() -> None:
    session, follower = _make_lister()
    frames = [Stamped(_squares(10 + step, 30 - step, 50), float(step)) for step in range(5)]
    follower.reground(_grounding(session, frames[0]))

    own = follower.follow(frames[0])
    later = [follower.follow(frame) for frame in frames[1:4]]

    assert [(item.number, item.box) for item in own] == [
        (1, (50, 70, 60, 80)),
        (2, (30, 40, 40, 50)),
        (3, (10, 10, 20, 20)),
    ]
    for step, objects in enumerate(later, start=1):
        assert [item.number for item in objects] == [1, 2, 3]
        assert [item.box[0] for item in objects] == [50, 30 - step, 10 + step]
        assert {(item.label, int(item.mask.sum())) for item in objects} == {("square", 100)}

    lowest_gone = Stamped(_squares(13, 27, -1), 5.0)
    assert [item.number for item in follower.follow(lowest_gone)] == [2, 3]  # 1 is searched where it was
    assert [item.number for item in follower.follow(frames[3])] == [1, 2, 3]
    follower.reground(_grounding(session, lowest_gone))  # without the lowest, and written from the second on
    assert [item.number for item in follower.follow(lowest_gone)] == [2, 3]
    elsewhere = Stamped(_squares(13, 27, 90), 6.0)
    follower.reground(_grounding(session, elsewhere))
    assert [item.number for item in follower.follow(elsewhere)] == [1, 2, 3]  # the free number is taken


def test_a_late_answer_is_moved_by_what_each_object_moved() -> None:
    session, follower = _make_lister()
    frames = [Stamped(_squares(10 + 3 * step, 60 - 3 * step), float(step)) for step in range(6)]
    follower.reground(_grounding(session, frames[0]))
    late = _grounding(session, frames[1])
    for frame in frames[:5]:
        follower.follow(frame)

    follower.reground(late)

    found = follower.follow(frames[5])
    assert [(item.number, item.box[0]) for item in found] == [(1, 45), (2, 25)]


def test_nothing_is_followed_while_the_policy_finds_nothing() -> None:
    session = Session(FakePolicy(_list_squares, form=BOX_LABEL_LIST), SeeingMask(), {})
    empty, full = (Stamped(_squares(*lefts), stamp_s) for lefts, stamp_s in (((), 0.0), ((10, 30), 1.0)))

    nothing, found = (list(session.track([frame], "the squares"))[-1] for frame in (empty, full))

    assert (nothing.status, nothing.box, nothing.objects, nothing.grounding.status) == ("nothing", None, (), "nothing")
    assert nothing.mask is not None
    assert not nothing.mask.any()
    assert (found.status, len(found.objects), found.box) == ("found", 2, (30, 40, 40, 50))
    assert found.mask is not None
    assert int(found.mask.sum()) == 200


def test_a_recording_waits_for_each_of_its_frames() -> None:
    """Frames at 0, 0.4, 0.8 ... s; the policy is asked again as soon as a second has passed, and if stamps go back."""
    session = Session(policy := FakePolicy(_list_squares, form=BOX_LABEL_LIST), SeeingMask(), {})
    stamps = [0.4 * place for place in range(7)]
    frames = [Stamped(_squares(10 + 2 * place), stamp_s) for place, stamp_s in enumerate([*stamps, 1.0])]

    results = list(session.track(iter(frames), "the squares", ground_every_s=1.0))

    assert [result.stamp_s for result in results] == [*stamps, 1.0]
    assert [frames.index(result.grounded_frame) for result in results] == [0, 0, 0, 3, 3, 3, 6, 7]
    assert [result.box for result in results] == [(left, 10, left + 10, 20) for left in range(10, 26, 2)]
    assert {result.dropped for result in results} == {0}
    assert policy.encoded == 4


def test_a_recording_ends_when_it_is_cancelled() -> None:
    session, policy = make()
    cancel = threading.Event()
    frames = [Stamped(square_image(left), float(left)) for left in range(10, 20)]
    policy.allowed.put("answer")
    results = session.track(frames, "the square", ground_every_s=3.0, cancel=cancel)
    followed = [next(results) for _ in range(3)]
    timer = threading.Timer(0.05, cancel.set)  # the policy is being asked about the frame at 13 s, and would wait
    timer.start()

    assert list(results) == []
    assert [result.stamp_s for result in followed] == [10.0, 11.0, 12.0]
    assert policy.seen == [10, 13]
