"""A policy with a recurrent state, on llama.cpp and torch: whatever came before, answers are a fresh session's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from tiny_qwen import make_qwen, save_qwen
from wise_edge.errors import QueryCancelledError, WiseEdgeError
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.source.reference import TorchReference
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.policy.llama import LlamaPolicy
from wise_edge.runtimes.policy.torch_policy import TorchPolicy

QUERIES = [f"the {size} ring {place}" for size in ("small", "large") for place in ("left", "right", "of the top")]
IMAGES = [np.random.default_rng(seed).integers(0, 256, (90, 130, 3), np.uint8) for seed in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and its GGUF files."""
    folder = save_qwen(make_qwen("qwen3_5", max_position_embeddings=1024), tmp_path_factory.mktemp("q") / "policy")
    policy = PolicyGguf(folder)
    policy.write_text(folder / "text.gguf", "F32", lambda *_: None)
    policy.write_vision(folder / "vision.gguf", "F32", lambda *_: None)
    return folder


def open_policy(folder: Path) -> LlamaPolicy:
    files = (folder / name for name in ("text.gguf", "vision.gguf", "tokenizer.json"))
    return LlamaPolicy("llama", read_policy_spec(folder), *files, threads=1)


Ask = Callable[[int, str], str]


@pytest.fixture(scope="module")
def fresh(folder: Path) -> Ask:
    """The answer of a policy that was asked nothing before, by image and query."""
    known: dict[tuple[int, str], str] = {}

    def ask(image: int, query: str) -> str:
        if (image, query) not in known:
            policy = open_policy(folder)
            known[image, query] = policy.generate(policy.encode(IMAGES[image]), Request(query, "answer")).text
        return known[image, query]

    return ask


@pytest.fixture
def policy(folder: Path) -> LlamaPolicy:
    return open_policy(folder)


@pytest.fixture
def images_run(policy: LlamaPolicy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each run of the language model over an image."""
    runs: list[int] = []
    original = policy._model.append_image

    def run(image: Any, position: int) -> int:
        runs.append(position)
        return original(image, position)

    monkeypatch.setattr(policy._model, "append_image", run)
    return runs


def test_further_queries_are_answered_as_by_a_fresh_session_and_run_no_image(
    policy: LlamaPolicy, fresh: Ask, images_run: list[int]
) -> None:
    encoded = policy.encode(IMAGES[0])

    found = [policy.generate(encoded, Request(query, "answer")).text for query in (*QUERIES, QUERIES[0])]

    assert found == [fresh(0, query) for query in (*QUERIES, QUERIES[0])]
    assert len(set(found)) > 1  # the query counts
    assert len(images_run) == 1


def test_with_the_state_of_another_query_other_answers_would_be_given(policy: LlamaPolicy, fresh: Ask) -> None:
    encoded, llama, context = policy.encode(IMAGES[0]), policy._model._llama, policy._model._context
    policy.generate(encoded, Request(QUERIES[0], "answer"))
    size = llama.llama_state_seq_get_size_ext(context, 0, llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    state = (ctypes.c_uint8 * size)()
    llama.llama_state_seq_get_data_ext(context, state, size, 0, llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    returned = policy._model.truncate

    def truncate(position: int) -> int:
        reached = returned(position)  # with the keys and values, only the state is another
        assert llama.llama_state_seq_set_data_ext(context, state, size, 0, llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        return reached

    policy._model.truncate = truncate  # type: ignore[method-assign]
    found = [policy.generate(encoded, Request(query, "answer")).text for query in QUERIES[1:]]

    assert all(text != fresh(0, query) for text, query in zip(found, QUERIES[1:], strict=True))


def test_queries_together_are_answered_as_one_by_one(policy: LlamaPolicy, fresh: Ask, images_run: list[int]) -> None:
    encoded = policy.encode(IMAGES[0])
    queries = [*QUERIES, *QUERIES[::-1]]  # more than run together

    for _ in range(2):
        together = policy.generate_many(encoded, [Request(query, "answer") for query in queries])
        assert [output.text for output in together] == [fresh(0, query) for query in queries]
    assert policy.generate(encoded, Request(QUERIES[1], "answer")).text == fresh(0, QUERIES[1])
    assert len(images_run) == 1


def test_images_in_turn_are_answered_and_run_once(policy: LlamaPolicy, fresh: Ask, images_run: list[int]) -> None:
    encoded = [policy.encode(image) for image in IMAGES]

    for query in QUERIES[:3]:
        for number in (0, 2, 1):
            assert policy.generate(encoded[number], Request(query, "answer")).text == fresh(number, query)
    assert len(images_run) == len(IMAGES)
    again = policy.encode(IMAGES[0])  # after a restored state
    assert policy.generate(again, Request(QUERIES[0], "answer")).text == fresh(0, QUERIES[0])


def test_a_cancelled_query_leaves_nothing(policy: LlamaPolicy, fresh: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, cancel = policy.encode(IMAGES[0]), Event()
    original, left = policy._model.append_each, 3

    def append(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            cancel.set()
        return original(*arguments, **named)

    monkeypatch.setattr(policy._model, "append_each", append)
    for ask in (policy.generate, lambda image, request: policy.generate_many(image, [request] * 3)):
        cancel.clear()
        left = 3
        with pytest.raises(QueryCancelledError):
            ask(encoded, Request(QUERIES[0], "answer", cancel=cancel))
        assert policy.generate(encoded, Request(QUERIES[1], "answer")).text == fresh(0, QUERIES[1])


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_a_failed_query_leaves_nothing(
    policy: LlamaPolicy, fresh: Ask, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    encoded, llama = policy.encode(IMAGES[0]), policy._model._llama
    original, left = llama.llama_decode, calls

    def decode(*arguments: Any) -> int:
        nonlocal left
        left -= 1
        return int(original(*arguments)) if left >= 0 else -3

    for ask in (policy.generate, lambda image, request: policy.generate_many(image, [request] * 3)):
        left = calls
        with monkeypatch.context() as patch:
            patch.setattr(llama, "llama_decode", decode)
            with pytest.raises(WiseEdgeError, match="failed on the prompt"):
                ask(encoded, Request(QUERIES[0], "answer"))
        assert policy.generate(encoded, Request(QUERIES[1], "answer")).text == fresh(0, QUERIES[1])


def test_a_state_that_cannot_be_restored_leaves_nothing(
    policy: LlamaPolicy, fresh: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [policy.encode(image) for image in IMAGES[:2]]
    with monkeypatch.context() as patch:
        patch.setattr(policy._model._llama, "llama_state_seq_set_data", lambda *_: 0)
        with pytest.raises(WiseEdgeError, match="cannot restore"):
            policy.generate(encoded[0], Request(QUERIES[0], "answer"))

    for number in (1, 0, 1):
        assert policy.generate(encoded[number], Request(QUERIES[0], "answer")).text == fresh(number, QUERIES[0])


def test_a_draft_is_not_run(policy: LlamaPolicy, fresh: Ask) -> None:
    encoded = policy.encode(IMAGES[0])
    for draft in (fresh(0, QUERIES[0]), fresh(0, QUERIES[2]), "<answer>"):
        output = policy.generate(encoded, Request(QUERIES[0], "answer", draft=draft))
        assert output.text == fresh(0, QUERIES[0])


def test_torch_writes_what_generate_of_transformers_writes(folder: Path) -> None:
    spec, policy = read_policy_spec(folder), TorchPolicy(folder)
    reference = TorchReference(load_policy(folder), spec, folder / "tokenizer.json")
    for number, query in enumerate(QUERIES[:3]):
        expected = reference.answer(CalibrationSample("", IMAGES[number], query))

        found = policy.generate(
            policy.encode(IMAGES[number]), Request(query, spec.default_variant, decoding=Decoding(forced=False))
        )

        text = reference.decode(expected.completion)
        assert len(text) > 100
        assert found.text.startswith(text.removesuffix("<|im_end|>"))  # which may write more tokens


def test_torch_answers_as_llama_cpp(folder: Path, fresh: Ask) -> None:
    policy = TorchPolicy(folder)
    for number, image in enumerate(IMAGES):
        encoded = policy.encode(image)
        for query in QUERIES[:2]:
            assert policy.generate(encoded, Request(query, "answer")).text == fresh(number, query)
