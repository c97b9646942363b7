"""What a memory makes of the policy's answers, one by one: bad ones, late ones, and what is kept of them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from functools import partial
from queue import Queue

import numpy as np
import pytest

from fake_session import list_boxes
from remembering_fakes import SIDE, GrayMemory, draw, frames_of, make
from wise_edge.runtimes.grounding import Grounding, ground_encoded
from wise_edge.runtimes.remembering import MemoryFollower
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import NewestFrame, Stamped

SEEN, GONE = draw({200: (10, 50)}), draw({})


def ask(session: Session, follower: MemoryFollower, frame: Stamped) -> Grounding:
    return ground_encoded(partial(session.ground, query="it"), frame, follower.begin_grounding(frame))


def test_the_masks_of_a_question_are_freed_with_its_answer() -> None:
    session, _, _ = make()
    follower = MemoryFollower(session.open_memory())
    first, second, third = frames_of(*[draw({200: (10 + place, 50)}) for place in range(3)])
    follower.reground(ask(session, follower, first))
    mask = weakref.ref(follower.follow(second)[0].mask)
    follower.reground(ask(session, follower, second))
    assert len(follower.follow(third)) == 1
    gc.collect()
    assert mask() is None


def test_a_first_answer_that_cannot_be_read_is_told() -> None:
    session, policy, _ = make()
    policy.text = "I do not know."
    (found,) = session.track(frames_of(SEEN), "it", ground_every_s=1.0, memory=True)
    assert (found.status, found.objects, found.hidden) == ("unreadable", (), ())


def test_after_an_answer_that_cannot_be_read_the_same_loss_is_no_reason_to_ask() -> None:
    session, policy, _ = make()
    for found in session.track(frames_of(SEEN, *[GONE] * 30), "it", ground_every_s=100.0, memory=True):
        policy.text = "I do not know."
        assert found.status in ("found", "nothing")
    assert len(policy.asked) == 2


def test_a_mask_that_is_poor_from_the_beginning_is_no_reason_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    session, policy, _ = make()
    look = GrayMemory._look
    monkeypatch.setattr(
        GrayMemory, "_look", lambda *given: {number: replace(each, score=0.4) for number, each in look(*given).items()}
    )
    assert len(list(session.track(frames_of(*[SEEN] * 30), "it", ground_every_s=100.0, memory=True))) == 30
    assert len(policy.asked) == 1


def test_a_visible_object_without_a_pixel_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    session, _, _ = make()
    look = GrayMemory._look
    monkeypatch.setattr(
        GrayMemory,
        "_look",
        lambda *given: {number: replace(each, object_score=2.0) for number, each in look(*given).items()},
    )
    found = list(session.track(frames_of(SEEN, GONE), "it", ground_every_s=100.0, memory=True))[1]
    assert found.objects == ()
    assert [(lost.number, lost.object_score) for lost in found.hidden or ()] == [(1, 2.0)]


def test_a_clock_that_begins_again_is_a_reason_to_ask() -> None:
    session, _, _ = make()
    frames = [Stamped(SEEN.copy(), stamp_s) for stamp_s in (5.0, 5.1, 0.0, 0.1)]
    found = list(session.track(frames, "it", ground_every_s=100.0, memory=True))
    assert [each.grounded_stamp_s for each in found] == [5.0, 5.0, 0.0, 0.0]


def test_an_object_takes_the_label_of_the_last_answer() -> None:
    session, policy, mask = make()
    labels = []
    for found in session.track(frames_of(*[SEEN] * 3), "it", ground_every_s=0.2, memory=True):
        policy.text = list_boxes([(10, 50, 30, 70)], (SIDE, SIDE), "red box")
        labels.append(found.objects[0].label)
    assert labels == ["square", "square", "red box"]
    assert len(mask.memory.prompts) == 1


def test_an_object_that_is_named_twice_keeps_both_numbers() -> None:
    session, policy, mask = make()
    policy.text = list_boxes([(10, 50, 30, 70)] * 2, (SIDE, SIDE), "square")
    found = list(session.track(frames_of(*[SEEN] * 3), "it", ground_every_s=0.0, memory=True))
    assert [[item.number for item in each.objects] for each in found] == [[1, 2]] * 3
    assert len(mask.memory.prompts) == 2


def test_an_answer_that_comes_after_its_object_was_forgotten_begins_another() -> None:
    session, policy, mask = make()
    follower = MemoryFollower(session.open_memory())
    first, second, *later = (Stamped(image, stamp_s) for image, stamp_s in zip(
        [SEEN.copy(), SEEN.copy(), GONE, SEEN.copy()], (0.0, 1.0, 40.0, 41.0), strict=True
    ))  # fmt: skip
    follower.reground(ask(session, follower, first))
    answer = ask(session, follower, second)
    assert follower.follow(later[0]) == ()
    assert (follower.hidden, mask.memory.grays) == ((), {})

    follower.reground(answer)

    assert [item.number for item in follower.follow(later[1])] == [1]
    np.testing.assert_array_equal(follower.follow(later[1])[0].mask, SEEN[..., 0] == 200)
    assert len(policy.asked) == 2


def test_the_last_frame_is_asked_about_if_nothing_was_found_before() -> None:
    session, policy, _ = make()
    policy.meant, policy.allowed, newest = (), Queue(), NewestFrame()
    results = session.track(newest, "it", memory=True)
    policy.allowed.put("answer")
    for stamp_s in (0.0, 0.1, 0.2):  # the second question is about 0.1 s
        newest.put(Stamped(SEEN.copy(), stamp_s))
        assert next(results).grounded_stamp_s == 0.0
    newest.end()
    policy.allowed.put("answer")
    policy.allowed.put("answer")

    assert [(found.stamp_s, found.grounded_stamp_s) for found in results] == [(0.2, 0.2)]
