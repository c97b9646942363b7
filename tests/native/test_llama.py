"""llama.cpp returns transformers' logits for the same image, or reports what is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tiny_qwen import FAMILIES, GRID, make_qwen, save_qwen
from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.native import llama, llama_library
from wise_edge.native.llama import LlamaModel, Piece, default_threads
from wise_edge.native.llama_library import require_llama
from wise_edge.native.llama_vision import LlamaImage
from wise_edge.policy.image import IMAGE_MEAN, IMAGE_STD, patchify

STEPS = 96
TOLERANCES = dict.fromkeys(FAMILIES, 2e-3) | {"qwen3_5": 1e-2}
"""Largest difference allowed between logits that reach 3 to 4. Most of it comes from the vision tower, where llama.cpp
looks GELU up in a table of half precision (image tokens differ by 1.5e-3); with text alone it is below 1e-5."""


@dataclass(frozen=True)
class Case:
    """A model in torch and in llama.cpp, an image, and the tokens before and after it."""

    reference: Any
    model: LlamaModel
    image: npt.NDArray[np.uint8]
    before: list[int]
    after: list[int]

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.reference.config.model_type]

    def expected(self, image: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.float32]:
        """Return transformers' logits after an image, [tokens, vocabulary]."""
        config, image = self.reference.config, self.image if image is None else image
        rows, columns = (side // config.vision_config.patch_size for side in image.shape[:2])
        ids = torch.tensor([[*self.before, *[config.image_token_id] * (rows * columns // 4), *self.after]])
        patches = patchify(image, config.vision_config.patch_size, 2, 2, IMAGE_MEAN, IMAGE_STD)
        with torch.no_grad():
            logits = self.reference(
                input_ids=ids,
                pixel_values=torch.from_numpy(patches),
                image_grid_thw=torch.tensor([[1, rows, columns]]),
                mm_token_type_ids=(ids == config.image_token_id).int(),
            ).logits
        return logits[0, -len(self.after) :].numpy()

    def prefill(self, image: LlamaImage) -> int:
        self.model.truncate(0)
        self.model.append(self.before, 0)
        position = self.model.append_image(image, len(self.before))
        self.model.snapshot(position)
        return position


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("llama")
    reference = make_qwen(request.param)
    policy = PolicyGguf(save_qwen(reference, root / "policy"))
    policy.write_text(root / "text.gguf", "F32", lambda *_: None)
    policy.write_vision(root / "vision.gguf", "F32", lambda *_: None)
    rng = np.random.default_rng(0)
    side = GRID * reference.config.vision_config.patch_size
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    config = reference.config
    before = [*rng.integers(0, 250, 10).tolist(), config.vision_start_token_id]
    after = [config.vision_end_token_id, *rng.integers(0, 250, STEPS - 1).tolist()]
    model = LlamaModel(root / "text.gguf", root / "vision.gguf", 1024, threads=1, exact=True)
    return Case(reference, model, image, before, after)


def test_teacher_forced_logits_are_those_of_transformers(case: Case) -> None:
    position = case.prefill(case.model.encode(case.image))

    logits = case.model.append(case.after, position, rows=STEPS)

    expected = case.expected()
    assert np.abs(logits - expected).max() <= case.tolerance
    assert (logits.argmax(1) == expected.argmax(1)).all()
    assert np.abs(expected).max() > 3  # otherwise the tolerance would prove little


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(8, 12), (4, 20), (16, 6), (2, 2), (6, 2), (52, 48)],  # one and three image tokens; the last in two calls
)
def test_images_of_any_sides_give_the_same_logits(case: Case, rows: int, columns: int) -> None:
    patch = case.reference.config.vision_config.patch_size
    image = np.random.default_rng(rows).integers(0, 256, (rows * patch, columns * patch, 3), dtype=np.uint8)
    position = case.prefill(case.model.encode(image))

    logits = case.model.append(case.after, position, rows=STEPS)

    expected = case.expected(image)
    assert np.abs(logits - expected).max() <= case.tolerance
    decided = np.diff(np.sort(expected)[:, -2:])[:, 0] > 2 * case.tolerance  # two tokens may be as good as one another
    assert (logits.argmax(1) == expected.argmax(1))[decided].all()
    assert decided.sum() >= 0.8 * STEPS


def test_states_that_are_shared_or_restored_give_the_same_logits(case: Case) -> None:
    start = case.prefill(case.model.encode(case.image))
    expected = case.model.append(case.after, start, rows=STEPS)
    case.model.truncate(start)
    state = case.model.save()

    case.model.fork(start, 3)
    forked = case.model.append_each([Piece(case.after, start, place) for place in range(3)], rows=STEPS)
    case.model.join()
    case.model.truncate(0)
    case.model.append(case.after, 0)  # something else
    case.model.restore(state)
    restored = case.model.append(case.after, start, rows=STEPS)

    np.testing.assert_allclose(forked.reshape(3, *expected.shape), np.stack([expected] * 3), atol=1e-3)
    np.testing.assert_allclose(restored, expected, atol=1e-3)


def test_a_model_that_does_not_rewind_returns_to_its_snapshots(case: Case) -> None:
    model = case.model
    model.truncate(0)
    for position, token in enumerate(case.before):
        model.append([token], position)
        if position in (3, 5, 8):
            model.snapshot(position + 1)  # the third one replaces the second

    kept = [model.truncate(position) for position in (len(case.before), 9, 8, 3)]

    assert kept == ([len(case.before), 9, 8, 3] if model.rewinds else [9, 9, 4, 0])
    assert model.rewinds is (case.reference.config.model_type != "qwen3_5")


def test_one_token_at_a_time_gives_the_same_logits(case: Case) -> None:
    start = case.prefill(case.model.encode(case.image))
    together = case.model.append(case.after, start, rows=STEPS)

    assert case.model.truncate(start) == start
    single = [case.model.append([token], start + step)[0] for step, token in enumerate(case.after)]

    np.testing.assert_allclose(np.stack(single), together, atol=1e-4)


def test_a_wrong_rotary_embedding_would_be_noticed(case: Case) -> None:
    rotary = case.reference.model.language_model.rotary_emb
    right = case.expected()
    rotary.inv_freq *= 0.99
    wrong = case.expected()
    rotary.inv_freq /= 0.99

    assert np.abs(wrong - right).max() > 10 * case.tolerance


def test_an_untested_version_is_rejected_with_the_line_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_library, "version", lambda _: "0.2.0")

    with pytest.raises(DeviceError, match=r"pip install llama-cpp-python==0\.3\.36"):
        require_llama()


def test_a_build_without_a_gpu_says_how_to_build_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(require_llama(), "llama_supports_gpu_offload", lambda: False)

    with pytest.raises(DeviceError, match="CMAKE_ARGS=-DGGML_CUDA=on"):
        LlamaModel(tmp_path / "text.gguf", tmp_path / "vision.gguf", 64, gpu=True)


def test_what_llama_cpp_rejects_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "check_gguf", lambda _: None)
    (tmp_path / "text.gguf").write_bytes(b"no model")

    with pytest.raises(WiseEdgeError, match=r"cannot load .*text\.gguf: .*magic"):
        LlamaModel(tmp_path / "text.gguf", tmp_path / "vision.gguf", 64)


@pytest.mark.parametrize(
    ("gpu", "requested", "chosen"),
    [(False, None, 0), (True, None, -1), (False, True, 1), (True, False, 0)],  # LLAMA_FLASH_ATTN_TYPE_...
)
def test_fused_attention_follows_the_device_or_the_user(
    gpu: bool, requested: bool | None, chosen: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    low_level, asked = require_llama(), []

    def remember(_: object, params: Any) -> None:
        asked.append((params.flash_attn_type, params.n_threads, params.n_threads_batch))

    monkeypatch.setattr(low_level, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(low_level, "llama_model_load_from_file", lambda *_: 1)
    for name in ("llama_model_free", "llama_model_is_hybrid", "llama_model_is_recurrent"):
        monkeypatch.setattr(low_level, name, lambda *_: None)
    monkeypatch.setattr(low_level, "llama_init_from_model", remember)
    monkeypatch.setattr(llama, "check_gguf", lambda _: None)
    with pytest.raises(WiseEdgeError, match="cannot hold 64 tokens"):
        LlamaModel(tmp_path / "t.gguf", tmp_path / "v.gguf", 64, threads=3, gpu=gpu, flash_attention=requested)
    assert asked == [(chosen, 3, 3)]


def test_a_small_model_runs_on_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    file = tmp_path / "text.gguf"
    file.write_bytes(b"x" * 1000)
    assert default_threads(file) == 1

    monkeypatch.setattr(llama, "_SMALL_FILE", 1000)
    assert default_threads(file) == 6
    assert default_threads(tmp_path / "none.gguf") == 6
