"""What is remembered of an object: which frames, for how long, and how little of a long video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wise_edge.runtimes.mask.bank import EMPTY, ObjectBank, stack
from wise_edge.sam.video.memory import MemorySpec

SPEC = MemorySpec(
    recent_frames=3,
    prompted_frames=2,
    recent_pointers=5,
    bfloat16=False,
    multimask_points=(0, 1),
    multimask_following=True,
)


def fill(bank: ObjectBank, times: range, prompted: set[int]) -> ObjectBank:
    for time in times:
        value = np.full((2, 4), time, np.float32)
        bank.add(time, value, value[0], prompted=time in prompted)
    return bank


def memories(bank: ObjectBank, time: int) -> dict[int, list[int]]:
    """Return the frames that are remembered, by age."""
    found: dict[int, list[int]] = {}
    for age, value in bank.list_memories(time):
        found.setdefault(age, []).append(int(value[0, 0]))
    return found


def test_the_last_frames_with_and_without_a_prompt_are_remembered() -> None:
    bank = fill(ObjectBank(SPEC), range(10), {0, 6})
    assert memories(bank, 10) == {0: [0, 6], 1: [9], 2: [8], 3: [7]}
    assert [age for age, _ in bank.list_pointers(10)] == [10, 4, 1, 2, 3, 5]
    assert [int(value[0]) for _, value in bank.list_pointers(10)] == [0, 6, 9, 8, 7, 5]


def test_an_old_prompt_gives_way_to_later_ones_and_counts_as_a_frame_without() -> None:
    bank = fill(ObjectBank(SPEC), range(5), {0, 2, 3})
    assert memories(bank, 5) == {0: [2, 3], 1: [4]}
    bank = fill(ObjectBank(SPEC), range(5), {2, 3, 4})
    assert memories(bank, 5) == {0: [3, 4], 3: [2]}
    assert [age for age, _ in bank.list_pointers(5)] == [2, 1, 3, 4, 5]


def test_a_correction_replaces_what_was_remembered_of_its_frame() -> None:
    bank = fill(ObjectBank(SPEC), range(3), {0})
    bank.add(2, np.full((2, 4), 7, np.float32), np.zeros(4, np.float32), prompted=True)
    assert memories(bank, 3) == {0: [0, 7], 2: [1]}


def test_frames_on_which_an_object_was_not_followed_leave_gaps() -> None:
    bank = fill(fill(ObjectBank(SPEC), range(1), {0}), range(4, 6), set())
    assert memories(bank, 7) == {0: [0], 2: [5], 3: [4]}


def test_what_is_kept_does_not_grow() -> None:
    bank = fill(ObjectBank(SPEC), range(10_000), set(range(0, 10_000, 50)))
    assert len(bank._prompted) == SPEC.prompted_frames
    assert len(bank._followed) <= SPEC.recent_pointers
    assert sum(each.memory is not None for each in bank._followed.values()) <= SPEC.recent_frames
    assert len(bank.list_memories(10_000)) == SPEC.frames
    assert len(bank.list_pointers(10_000)) == SPEC.pointers


def test_memories_are_rounded_to_bfloat16_and_stored_in_half_the_bytes() -> None:
    torch = pytest.importorskip("torch")
    values = (100 * np.random.default_rng(0).standard_normal((64, 64))).astype(np.float32)
    values[0, :2] = 1 + 2.0**-8, 1 + 3 * 2.0**-8  # halfway between two numbers: to the even one
    bank = ObjectBank(replace(SPEC, bfloat16=True))
    bank.add(0, values, values[0], prompted=True)
    ((_, found),) = bank.list_memories(1)
    np.testing.assert_array_equal(found, torch.from_numpy(values).to(torch.bfloat16).float().numpy())
    assert bank._prompted[0].memory is not None
    assert bank._prompted[0].memory.nbytes == values.nbytes // 2


def test_objects_of_different_pasts_stand_in_arrays_of_one_size() -> None:
    banks = [fill(ObjectBank(SPEC), range(count), {0}) for count in (1, 4)]
    values, ages = stack([bank.list_memories(4) for bank in banks], SPEC.frames)
    assert values.shape == (2, SPEC.frames, 2, 4)
    np.testing.assert_array_equal(ages, [[0, EMPTY, EMPTY, EMPTY, EMPTY], [0, 1, 2, 3, EMPTY]])
    assert not values[ages == EMPTY].any()
