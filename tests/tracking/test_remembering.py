"""Tracking with a memory: what is hidden is said and comes back, and the policy is asked when something is lost."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from queue import Queue

import numpy as np
import numpy.typing as npt
import pytest

from fake_session import FakeMask, FakePolicy
from remembering_fakes import GrayMask, NamingPolicy, draw, frames_of, grays_of, make
from waiting import wait_for
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked

WALL = (40, 0, 70, 112)


def crossing(count: int = 20, step: int = 4) -> list[npt.NDArray[np.uint8]]:
    """Return a square of gray 200 that passes behind a wall; it cannot be seen while its left edge is in 40 to 50."""
    return [draw({200: (8 + step * place, 50)}, WALL) for place in range(count)]


def follow(
    images: list[npt.NDArray[np.uint8]], every_s: float = 100.0, rate: float = 10.0
) -> tuple[list[Tracked], NamingPolicy, GrayMask]:
    session, policy, mask = make()
    frames = frames_of(*images, rate=rate)
    results = list(session.track(frames, "the square", ground_every_s=every_s, memory=True))
    assert [found.frame for found in results] == frames
    return results, policy, mask


def grounded(results: list[Tracked]) -> list[int]:
    """Return the numbers of the frames that the policy saw."""
    return sorted({round(found.grounded_stamp_s * 10) for found in results})


def test_what_is_hidden_is_said_and_comes_back_with_its_number() -> None:
    results, _, mask = follow(crossing())

    hidden = [place for place, found in enumerate(results) if found.hidden]
    assert hidden == [8, 9, 10]  # lefts 40, 44 and 48
    for place, found in enumerate(results):
        shown = np.array(found.frame.image)[..., 0] == 200
        if place in hidden:
            (lost,) = found.hidden or ()
            assert (found.objects, found.status, found.box) == ((), "nothing", None)
            assert (lost.number, lost.label, lost.object_score) == (1, "square", -5.0)
            assert (lost.box, lost.hidden_s) == ((36, 50, 40, 70), pytest.approx((place - 7) / 10))
        else:
            assert [item.number for item in found.objects] == [1]
            np.testing.assert_array_equal(found.objects[0].mask, shown)
    assert len(mask.memory.prompts) == 1
    drawn = results[9].overlay()
    np.testing.assert_array_equal(drawn, results[9].frame.image)  # nothing is drawn for what is hidden


def test_the_policy_is_asked_when_something_is_lost_but_not_again_and_again() -> None:
    results, policy, _ = follow(crossing())

    # On frame 6 less than half of the square is left; then it hides, and comes out again bit by bit.
    assert grounded(results) == [0, 6]
    assert len(policy.asked) == 2


def test_a_loss_within_half_a_second_of_the_last_question_waits() -> None:
    seen, gone = draw({200: (10, 50)}), draw({})
    images = [seen, gone] * 20  # at 10 frames a second it is lost on every second one

    results, _, _ = follow(images)

    asked = grounded(results)
    assert asked[0] == 0
    assert all(later - earlier >= 5 for earlier, later in pairwise(asked))
    assert len(asked) == 7


def test_the_clock_asks_too_and_gives_the_same_results_each_time() -> None:
    images = [draw({200: (10 + place, 50)}) for place in range(30)]
    twice = [follow(images, every_s=1.0)[0] for _ in range(2)]

    assert grounded(twice[0]) == [0, 10, 20]
    for one, other in zip(*twice, strict=True):
        assert (one.box, one.grounded_stamp_s) == (other.box, other.grounded_stamp_s)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_several_objects_are_followed_and_one_of_them_hides() -> None:
    session, policy, _ = make()
    policy.meant = (100, 200)
    images = [draw({200: (8 + 4 * place, 50), 100: (0, 2 * place)}, WALL) for place in range(14)]

    results = list(session.track(frames_of(*images), "the squares", ground_every_s=100.0, memory=True))

    numbers = [[item.number for item in found.objects] for found in results]
    assert numbers == [[1, 2]] * 8 + [[1]] * 3 + [[1, 2]] * 3
    assert [[item.number for item in found.hidden or ()] for found in results] == [[]] * 8 + [[2]] * 3 + [[]] * 3
    assert {found.status for found in results} == {"found"}
    assert results[9].box == (0, 18, 20, 38)


@pytest.mark.parametrize(
    ("off", "prompts", "last"),
    [(0, [1], [1]), (2, [1], [1]), (5, [1, 1], [1]), (12, [1, 1], [])],  # IoU 1, 0.82, 0.6, 0.25
)
def test_what_agrees_is_left_alone_and_what_is_near_is_corrected(off: int, prompts: list[int], last: list[int]) -> None:
    session, policy, mask = make()
    images = [draw({200: (30, 50)})] * 4
    results = []
    for place, found in enumerate(session.track(frames_of(*images), "it", ground_every_s=0.3, memory=True)):
        policy.off = off if place == 2 else 0
        results.append(found)

    assert [number for _, number, _ in mask.memory.prompts] == prompts
    assert [[item.number for item in found.objects] for found in results] == [[1]] * 3 + [last]
    if len(prompts) > 1:  # on the frame that the policy saw, as it was encoded for the masks of its answer
        encoded, _, box = mask.memory.prompts[-1]
        assert encoded.pixels is results[3].frame.image
        assert abs(box[0] - (30 + off)) <= 1


def test_what_the_policy_names_no_more_is_forgotten_and_a_new_one_is_begun() -> None:
    session, policy, mask = make()
    images = [draw({200: (10, 50), 100: (60, 50)})] * 4
    numbers = []
    for place, found in enumerate(session.track(frames_of(*images), "it", ground_every_s=0.0, memory=True)):
        policy.meant = ((100, 200), (100,), (), ())[place]
        numbers.append([(item.number, item.box[0]) for item in found.objects])

    assert numbers == [[(1, 10)], [(1, 10), (2, 60)], [(2, 60)], []]
    assert mask.memory.grays == {}


def test_what_is_hidden_is_kept_when_the_policy_cannot_name_it() -> None:
    """It names another one meanwhile, as policies do that always name something."""
    session, policy, _ = make()
    images = [draw({200: (8 + 4 * place, 50), 100: (80, 0)}, WALL) for place in range(20)]
    numbers = []
    for place, found in enumerate(session.track(frames_of(*images), "it", ground_every_s=0.2, memory=True)):
        policy.meant = (100,) if 7 <= place <= 10 else (200,)
        numbers.append([(item.number, int(item.mask.sum())) for item in found.objects])

    assert {number for place in (7, 12, 19) for number, _ in numbers[place]} >= {1}
    assert [number for number, _ in numbers[9]] == [2]
    assert numbers[19] == [(1, 400)]


def test_an_answer_that_cannot_be_read_changes_nothing() -> None:
    session, policy, _ = make()
    images = [draw({200: (10 + place, 50)}) for place in range(4)]
    results = []
    for found in session.track(frames_of(*images), "it", ground_every_s=0.0, memory=True):
        policy.text = "I do not know."
        results.append(found)

    assert [(found.status, found.box[0] if found.box else None) for found in results] == [
        ("found", left) for left in (10, 11, 12, 13)
    ]
    assert {found.grounded_stamp_s for found in results} == {0.0}
    assert len(policy.asked) == 4


def test_nothing_is_followed_until_the_policy_finds_something() -> None:
    images = [draw({})] * 3 + [draw({200: (10, 50)})] * 3
    results, policy, mask = follow(images, every_s=0.2)

    assert [(found.status, found.hidden) for found in results[:4]] == [("nothing", ())] * 4
    assert [found.status for found in results[4:]] == ["found"] * 2
    assert (len(policy.asked), mask.encoded) == (3, 2)  # without an object the segmenter rests


def test_an_object_that_the_memory_does_not_see_is_not_kept() -> None:
    session, policy, mask = make()
    policy.off = 40  # beside the square
    results = list(session.track(frames_of(*[draw({200: (10, 50)})] * 3), "it", ground_every_s=0.0, memory=True))

    assert [(found.status, found.hidden) for found in results] == [("nothing", ())] * 3
    assert [found.grounding.status for found in results] == ["found"] * 3
    assert mask.memory.grays == {}


def test_what_was_not_seen_for_long_is_forgotten() -> None:
    images = [draw({200: (10, 50)})] + [draw({})] * 40 + [draw({200: (10, 50)})]
    results, _, mask = follow(images, every_s=1000.0, rate=1.0)

    hidden = [len(found.hidden or ()) for found in results]
    assert hidden == [0] + [1] * 30 + [0] * 11  # seconds
    assert mask.memory.grays == {}


def test_the_number_of_objects_is_bounded() -> None:
    """A policy that names another two each time, which are gone at once."""
    session, policy, mask = make()
    policy.meant = range(21, 256)
    images = [draw({30 + 2 * place: (10, 10), 31 + 2 * place: (60, 60)}) for place in range(60)]
    most = 0
    for found in session.track(frames_of(*images), "it", ground_every_s=0.0, memory=True):
        most = max(most, len(mask.memory.grays))
        assert len(found.objects) == 2

    assert most == MAX_OBJECTS


def test_a_frame_of_another_size_is_taken() -> None:
    session, _, _ = make()
    small = draw({200: (10, 50)})
    images = [small, np.repeat(np.repeat(small, 2, 0), 3, 1)]

    results = list(session.track(frames_of(*images), "it", ground_every_s=100.0, memory=True))

    assert [(found.image_size, found.box) for found in results] == [
        ((112, 112), (10, 50, 30, 70)),
        ((336, 224), (30, 100, 90, 140)),
    ]
    assert results[1].objects[0].mask.shape == (224, 336)


def test_without_a_memory_it_is_one_line_at_the_call() -> None:
    embedded = Session.from_bundle(mask_backend="onnx", threads=1)
    with pytest.raises(UsageError, match=r"has no memory.*; export "):
        embedded.track([], "it", memory=True)
    with pytest.raises(UsageError, match="memory must be True or False, got "):
        embedded.track([], "it", memory="yes")  # type: ignore[arg-type]
    session = Session(FakePolicy(), FakeMask(), {})
    assert [found.hidden for found in session.track(frames_of(draw({})), "it", ground_every_s=1.0)] == [None]


def test_no_array_is_kept_for_longer_than_it_is_needed() -> None:
    """10,000 frames with objects that come, go, hide and are found again; counted, not timed."""
    session, policy, mask = make()
    policy.meant = (100, 200)
    images: list[weakref.ref[npt.NDArray[np.uint8]]] = []
    masks: list[weakref.ref[npt.NDArray[np.bool_]]] = []

    def film() -> Iterator[Stamped]:
        for place in range(10_000):
            image = draw({200: (place % 90, 50), 100: (60, 92 - place % 200)}, WALL)
            images.append(weakref.ref(image))
            yield Stamped(image, place / 30)

    most = [0, 0]
    for place, found in enumerate(session.track(film(), "it", ground_every_s=1.0, memory=True)):
        mask.memory.prompts.clear()  # what the fakes note for tests
        mask.memory.follows.clear()
        policy.asked.clear()
        masks += [weakref.ref(item.mask) for item in found.objects]
        del found
        if place % 500 == 499:
            gc.collect()
            for kind, arrays in enumerate((images, masks)):
                most[kind] = max(most[kind], sum(array() is not None for array in arrays))

    assert len(masks) > 10_000
    assert most[0] <= 4  # this one, and those of the last question: the frame, and the session's and the policy's copy
    assert most[1] <= 8  # of two objects: on this frame, in the last answer, and in the memory
    assert len(mask.memory.grays) <= 3


def live() -> tuple[Session, NamingPolicy, GrayMask, NewestFrame, Iterator[Tracked]]:
    """Return fakes whose policy waits to be let, a camera, and its tracking."""
    session, policy, mask = make()
    policy.allowed, newest = Queue(), NewestFrame()
    return session, policy, mask, newest, session.track(newest, "it", memory=True)


def see(newest: NewestFrame, results: Iterator[Tracked], stamp_s: float, **at: tuple[int, int]) -> Tracked:
    """Show a frame with squares, such as g200=(left, top), and return its result."""
    newest.put(Stamped(draw({int(name[1:]): place for name, place in at.items()}), stamp_s))
    found = next(results)
    assert found.stamp_s == stamp_s
    return found


def test_a_late_answer_prompts_its_own_frame_and_the_memory_catches_up() -> None:
    _, policy, mask, newest, results = live()
    assert policy.allowed is not None
    policy.allowed.put("answer")
    first = see(newest, results, 0.0, g200=(10, 50))
    see(newest, results, 1.0, g200=(14, 50), g100=(10, 0))
    wait_for(lambda: len(policy.asked) == 2)
    policy.meant = (100, 200)
    before = [see(newest, results, 1 + step / 10, g200=(14 + step, 50), g100=(10 + 5 * step, 0)) for step in (1, 2, 3)]

    policy.allowed.put("answer")  # about the frame of 1 s, where square 100 was 15 pixels to the left
    late = next(results)

    assert [item.number for item in first.objects] == [1]
    assert [[item.number for item in found.objects] for found in before] == [[1]] * 3
    assert (late.stamp_s, late.grounded_stamp_s, late.dropped) == (1.3, 1.0, 0)
    assert [(item.number, item.box) for item in late.objects] == [(1, (17, 50, 37, 70)), (2, (25, 0, 45, 20))]
    encoded, number, box = mask.memory.prompts[-1]
    assert (number, box) == (2, (10, 0, 30, 20))
    assert encoded is mask.memory.follows[0]  # not encoded again
    results.close()  # type: ignore[attr-defined]


def test_a_late_correction_begins_the_memory_anew() -> None:
    """What it remembers since then is of something else."""
    _, policy, mask, newest, results = live()
    assert policy.allowed is not None
    policy.allowed.put("answer")
    see(newest, results, 0.0, g200=(10, 50))
    see(newest, results, 1.0, g200=(14, 50))
    wait_for(lambda: len(policy.asked) == 2)
    see(newest, results, 1.1, g200=(18, 50))
    forgotten: list[int] = []
    forget, mask.memory.forget = mask.memory.forget, lambda number: (forgotten.append(number), forget(number))  # type: ignore[method-assign]
    policy.off = 5

    policy.allowed.put("answer")
    late = next(results)

    assert (forgotten, [number for _, number, _ in mask.memory.prompts]) == ([1], [1, 1])
    assert [(item.number, item.box) for item in late.objects] == [(1, (18, 50, 38, 70))]
    results.close()  # type: ignore[attr-defined]


def test_a_slow_policy_rests_as_long_as_it_took() -> None:
    _, policy, _, newest, results = live()
    assert policy.allowed is not None
    policy.allowed.put("answer")
    see(newest, results, 0.0, g200=(10, 50))
    see(newest, results, 0.9, g200=(10, 50))
    assert len(policy.asked) == 1
    see(newest, results, 1.0, g200=(10, 50))
    wait_for(lambda: len(policy.asked) == 2)
    see(newest, results, 3.9, g200=(10, 50))
    policy.allowed.put("answer")
    wait_for(lambda: policy.allowed is not None and policy.allowed.empty())
    newest.put(Stamped(draw({200: (10, 50)}), 4.0))
    while (found := next(results)).grounded_stamp_s == 0.0:  # until the answer is taken, which took 3 s
        newest.put(Stamped(draw({200: (10, 50)}), 4.0))
    for stamp_s in (4.1, 5.0, 6.9):
        found = see(newest, results, stamp_s)  # it is lost
        assert len(found.hidden or ()) == 1
    assert len(policy.asked) == 2
    see(newest, results, 7.0, g30=(60, 60))
    wait_for(lambda: len(policy.asked) == 3)
    assert grays_of(policy.asked[2]) == [30]
    results.close()  # type: ignore[attr-defined]


def test_a_camera_on_which_nothing_is_found_is_asked_about_until_it_ends() -> None:
    _, policy, mask, newest, results = live()
    assert policy.allowed is not None
    policy.meant = ()
    for stamp_s in (0.0, 0.1, 0.2):
        policy.allowed.put("answer")
        newest.put(Stamped(draw({200: (10, 50)}), stamp_s))
        found = next(results)
        while found.stale or found.stamp_s != stamp_s:
            found = next(results)
        assert (found.status, found.hidden) == ("nothing", ())
    newest.end()

    assert list(results) == []
    assert (len(policy.asked), mask.encoded) == (3, 0)
    assert not any(thread.name.startswith("grounding") for thread in threading.enumerate())


def test_the_last_frame_is_followed_and_an_open_answer_is_awaited() -> None:
    _, policy, _, newest, results = live()
    assert policy.allowed is not None
    policy.allowed.put("answer")
    see(newest, results, 0.0, g200=(10, 50))
    see(newest, results, 1.0, g200=(12, 50))
    policy.meant = (100, 200)
    see(newest, results, 1.1, g200=(14, 50))
    newest.end()
    policy.allowed.put("answer")

    assert list(results) == []
    assert len(policy.asked) == 2


def test_what_fails_is_raised_and_canceling_leaves_no_thread() -> None:
    session, policy, _, newest, results = live()
    assert policy.allowed is not None
    newest.put(Stamped(draw({}), 0.0))
    policy.write = None  # type: ignore[assignment]
    policy.generate = lambda *_: (_ for _ in ()).throw(WiseEdgeError("the engine failed"))  # type: ignore[method-assign]
    with pytest.raises(WiseEdgeError, match="the engine failed"):
        next(results)

    def broken() -> Iterator[Stamped]:
        raise OSError("the camera is gone")
        yield

    with pytest.raises(OSError, match="the camera is gone"):
        list(session.track(broken(), "it", memory=True))

    _, policy, _, newest, _ = live()
    cancel = threading.Event()
    session, policy, _ = make()
    policy.allowed = Queue()
    newest.put(Stamped(draw({200: (10, 50)}), 0.0))
    found: list[Tracked] = []
    thread = threading.Thread(target=lambda: found.extend(session.track(newest, "it", memory=True, cancel=cancel)))
    thread.start()
    wait_for(lambda: len(policy.asked) == 1)
    cancel.set()
    thread.join(10)
    assert not thread.is_alive()
    assert found == []
    assert not any(each.name.startswith("grounding") for each in threading.enumerate())
