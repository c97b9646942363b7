"""Following objects through a video: what every memory promises, and one line for what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fake_session import FakeMemory
from tracking_fakes import SeeingMask, square_image
from wise_edge.errors import UsageError
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.runtimes.session import Session


def test_a_prompt_and_the_following_of_one_frame_may_come_in_either_order() -> None:
    mask = SeeingMask()
    frames = [mask.encode(square_image(left)) for left in (20, 24, 28)]
    masks = []
    for prompt_first in (True, False):
        memory = FakeMemory(mask)
        memory.prompt(frames[0], {7: MaskPrompt((20, 40, 40, 60))})
        memory.follow(frames[1])
        correction = {3: MaskPrompt((28, 40, 48, 60))}
        if prompt_first:
            memory.prompt(frames[2], correction)
            found = memory.follow(frames[2])
        else:
            found = memory.follow(frames[2]) | memory.prompt(frames[2], correction)
        assert memory.time == 2
        assert sorted(found) == [3, 7]
        assert all(each.visible for each in found.values())
        masks.append([found[number].mask for number in (3, 7)])
    np.testing.assert_array_equal(*masks)


def test_an_object_is_forgotten_and_one_that_is_not_there_is_named() -> None:
    mask = SeeingMask()
    frames = [mask.encode(square_image(20)) for _ in range(3)]
    memory = FakeMemory(mask)
    prompt = MaskPrompt((20, 40, 40, 60))
    memory.prompt(frames[0], {1: prompt, 2: prompt})
    memory.forget(1)
    assert list(memory.follow(frames[1])) == [2]
    with pytest.raises(UsageError, match="no object has the number 1; followed are: 2"):
        memory.forget(1)
    memory.forget(2)
    with pytest.raises(UsageError, match="no object is followed yet"):
        memory.follow(frames[2])


def test_a_video_may_change_its_size() -> None:
    mask = SeeingMask()
    memory = FakeMemory(mask)
    memory.prompt(mask.encode(square_image(20)), {1: MaskPrompt((20, 40, 40, 60))})
    assert memory.follow(mask.encode(square_image(20)[:80, :90]))[1].mask.shape == (80, 90)
    assert memory.time == 1


def test_a_segmenter_without_memory_says_which_have_one(tiny_checkpoints: tuple[Path, Path]) -> None:
    embedded = Session.from_bundle(mask_backend="onnx", threads=1)
    with pytest.raises(UsageError, match="no memory of earlier frames; export SAM 2"):
        embedded.mask.open_memory()
    with pytest.raises(UsageError, match="no memory of earlier frames; export SAM 2"):
        open_torch_mask(tiny_checkpoints[1]).open_memory()
