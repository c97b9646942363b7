"""One session sees images within several budgets of pixels; a kept image is never that of another budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt
import pytest

from fake_session import FakeImage, FakeMask, FakePolicy
from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError
from wise_edge.geometry import Size
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.runtimes.base import PolicyBackend
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.policy.torch_policy import TorchPolicy
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session

FEWER = 84 * 84
SCENES = [SceneDataset("test")[place] for place in range(2)]


class Masks(FakeMask):
    encoded = 0

    def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
        self.encoded += 1
        return super().encode(image)


class Budgets(FakePolicy):
    """Notes the budget of each image that it encodes."""

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> FakeImage:
        self.asked = [*getattr(self, "asked", []), pixels]
        return super().encode(image, pixels)


def test_an_image_is_encoded_again_for_another_grid_and_its_mask_is_not() -> None:
    policy, mask = Budgets(), Masks()
    session = Session(policy, mask, {}, frames=2)
    image, other = SCENES[0].image, SCENES[1].image

    def reused(image: npt.NDArray[np.uint8], pixels: int | None) -> bool:
        return session.segment(image, "the ring", pixels=pixels).frame_reused

    assert [reused(image, pixels) for pixels in (None, FEWER, FEWER + 9, 112 * 112)] == [False, False, True, False]
    assert not reused(other, FEWER)
    assert [reused(image, None), reused(other, FEWER + 100), reused(other, None)] == [True, True, False]
    assert policy.asked == [None, FEWER, 112 * 112, FEWER, None]
    assert mask.encoded == 2


def test_what_a_session_was_opened_with_holds_unless_a_query_asks_for_fewer() -> None:
    policy = Budgets()
    session = Session(policy, FakeMask(), {}, pixels=FEWER)
    session.segment_many(SCENES[0].image, ["the ring", "the star"])
    session.segment(SCENES[1].image, "the ring")
    session.segment(SCENES[1].image, "the ring", pixels=56 * 56)
    assert policy.asked == [FEWER, FEWER, 56 * 56]


def test_threads_with_other_budgets_do_not_mix_answers() -> None:
    session = Session.from_checkpoints(*(resolve_checkpoint("embedded", part) for part in ("policy", "sam")))
    budgets = (None, FEWER, 56 * 56)
    expected = {pixels: session.segment(SCENES[0].image, "the ring", pixels=pixels).to_dict() for pixels in budgets}
    found: list[tuple[int | None, SegmentationResult]] = []

    def ask(pixels: int | None) -> None:
        found.extend((pixels, session.segment(SCENES[0].image, "the ring", pixels=pixels)) for _ in range(3))

    threads = [Thread(target=ask, args=(pixels,)) for pixels in budgets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 9
    for pixels, result in found:
        assert all(result.to_dict()[entry] == expected[pixels][entry] for entry in ("text", "box", "points", "mask"))


def open_torch(pixels: int | None, _: Path) -> PolicyBackend:
    folder = resolve_checkpoint("embedded", "policy")
    return TorchPolicy(folder, read_policy_spec(folder).within(pixels))


def open_llama(pixels: int | None, folder: Path) -> PolicyBackend:
    pytest.importorskip("llama_cpp")
    from wise_edge.export.to_gguf.convert import PolicyGguf
    from wise_edge.runtimes.policy.llama import LlamaPolicy

    files = folder / "text.gguf", folder / "vision.gguf"
    if not files[1].exists():
        converted = PolicyGguf(resolve_checkpoint("embedded", "policy"))
        converted.write_text(files[0], "F16", lambda *_: None)
        converted.write_vision(files[1], "F16", lambda *_: None)
    bundle = load(resolve_bundle("embedded"))
    spec = bundle.manifest.policy.within(pixels)
    return LlamaPolicy("llama", spec, *files, bundle.file("policy.tokenizer"), threads=1)


@pytest.mark.parametrize("open_policy", [open_torch, open_llama])
def test_each_budget_answers_as_a_policy_that_was_opened_with_it(open_policy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def ask(session: Session, pixels: int | None) -> list[object]:
        results = [session.segment(scene.image, scene.query, "wise-s", pixels=pixels) for scene in SCENES]
        return [(result.text, result.box, result.points, replace(result.tokens, decode_steps=0)) for result in results]

    budgets = (None, FEWER, 56 * 56, 28 * 28)
    expected = {pixels: ask(Session(open_policy(pixels, tmp_path), FakeMask(), {}), None) for pixels in budgets}
    assert len({answers[0][3].image for answers in expected.values()}) == len(budgets)  # type: ignore[attr-defined]
    session = Session(open_policy(None, tmp_path), FakeMask(), {}, frames=2)
    for pixels in (*budgets, *budgets[::-1], FEWER):
        assert ask(session, pixels) == expected[pixels], pixels


def test_the_room_for_an_answer_is_that_of_its_picture() -> None:
    bundle = load(resolve_bundle("embedded"))
    spec = bundle.manifest.policy
    text = PolicyText(bundle.file("policy.tokenizer"), spec)
    less = PolicyText(bundle.file("policy.tokenizer"), spec.within(FEWER)).room_for_answer((3, 3))
    assert text.room_for_answer((3, 3)) == less == text.room_for_answer((4, 4)) - 8  # a digit of each number less


@pytest.mark.parametrize(("pixels", "message"), [(0, "at least 1"), (100, "hold no image token"), (10**6, "has room")])
def test_budgets_that_cannot_be_are_refused_before_anything_is_encoded(pixels: int, message: str) -> None:
    policy = TorchPolicy(resolve_checkpoint("embedded", "policy"))
    size: Size = (30, 20)
    with pytest.raises(UsageError, match=message):
        policy.grid(size, pixels)
    with pytest.raises(UsageError, match=message):
        Session(policy, FakeMask(), {}).segment(np.zeros((20, 30, 3), np.uint8), "the ring", pixels=pixels)
