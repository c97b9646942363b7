"""The fake memory of the other tests beside real ones, and tracking with a real one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fake_session import FakePolicy, list_boxes
from remembering_fakes import GrayMask, draw
from tiny_video_models import make_frames, make_video_model
from wise_edge.errors import UsageError
from wise_edge.geometry import Box
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.runtimes.base import MaskPrompt, RememberedMask
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import Stamped


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    make_video_model("sam2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["fake", "torch"])
def backend(request: pytest.FixtureRequest, checkpoint: Path) -> Any:
    return GrayMask() if request.param == "fake" else open_torch_mask(checkpoint)


def show(left: int, height: int = 112) -> npt.NDArray[np.uint8]:
    return draw({200: (left, 50), 100: (10, 5)})[:height]


def check(found: Mapping[int, RememberedMask], numbers: list[int], height: int = 112) -> None:
    assert list(found) == numbers
    for each in found.values():
        assert type(each) is RememberedMask
        assert (each.mask.shape, each.mask.dtype) == ((height, 112), bool)
        assert (each.logits.ndim, each.logits.dtype) == (2, np.float32)
        assert {type(each.score), type(each.object_score), type(each.decode_ms)} == {float}
        assert each.visible is (each.object_score > 0)
        assert each.visible or not each.mask.any()


def test_what_tracking_asks_of_a_memory_is_answered_alike(backend: Any) -> None:
    memory = backend.open_memory()
    frames = [backend.encode(show(left)) for left in (10, 14, 18, 22)]
    one, two = MaskPrompt((10, 50, 30, 70), ((20, 60),)), MaskPrompt((10, 5, 30, 25))
    with pytest.raises(UsageError, match="no object is followed yet"):
        memory.follow(frames[0])
    begun = memory.prompt(frames[0], {7: one})
    check(begun, [7])
    same = memory.follow(frames[0])
    np.testing.assert_array_equal(same[7].logits, begun[7].logits)
    check(memory.follow(frames[1]), [7])
    check(again := memory.follow(frames[1]), [7])  # a frame is followed once
    check(memory.follow(frames[2]), [7])
    late = memory.prompt(frames[1], {3: two})  # an answer about an earlier frame; then the newest one again
    check(late, [3])
    check(memory.follow(frames[2]), [7, 3])
    memory.forget(7)
    memory.prompt(frames[1], {7: one})
    check(memory.follow(frames[2]), [3, 7])
    check(memory.follow(frames[3]), [3, 7])
    memory.forget(3)
    check(memory.follow(backend.encode(show(22, 80))), [7], 80)
    with pytest.raises(UsageError, match="no object has the number 3"):
        memory.forget(3)
    assert again[7].mask.shape == (112, 112)


class _Noted:
    """A backend whose memory notes what it is asked."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.calls = backend, []
        self.name = backend.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def open_memory(self) -> Any:
        memory, calls = self._backend.open_memory(), self.calls

        class Noting:
            def __getattr__(self, name: str) -> Any:
                def call(*arguments: Any) -> Any:
                    calls.append((name, arguments))
                    return getattr(memory, name)(*arguments)

                return call

        return Noting()


def test_tracking_tells_what_a_real_memory_says(checkpoint: Path) -> None:
    """The memory is asked the same again, alone; scores and masks of each frame are those of its answers."""
    noted = _Noted(open_torch_mask(checkpoint))
    boxes: list[Box] = [(4, 20, 26, 42), (46, 30, 62, 42)]
    policy = FakePolicy(lambda *_: list_boxes(boxes, (64, 64)), form=BOX_LABEL_LIST)
    frames = [Stamped(image, place / 10) for place, image in enumerate(make_frames(16))]
    frames[12] = Stamped(frames[12].image[:48], 1.2)

    results = list(Session(policy, noted, {}).track(frames, "squares", ground_every_s=0.7, memory=True))

    alone, told = noted._backend.open_memory(), {}
    for name, arguments in noted.calls:
        found = getattr(alone, name)(*arguments)
        if name == "follow":
            told[id(arguments[0])] = found
    assert len(results) == 16
    assert len(told) == 16
    assert [name for name, _ in noted.calls].count("prompt") >= 1
    visible = 0
    for found, answer in zip(results, told.values(), strict=True):
        for item in found.objects:
            np.testing.assert_array_equal(item.mask, answer[item.number].mask)
            assert item.object_score == answer[item.number].object_score
            assert item.mask.shape == found.frame.image.shape[:2]
        assert {item.number for item in found.objects} | {item.number for item in found.hidden or ()} <= answer.keys()
        visible += len(found.objects)
    assert visible >= 10
