"""The embedded policy on llama.cpp: batches, kept frames and drafts give what one query after the other gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("llama_cpp")

from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import QueryCancelledError, WiseEdgeError
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.native.llama import MAX_SEQUENCES, LlamaModel, Piece
from wise_edge.runtimes.base import Request
from wise_edge.runtimes.policy import llama
from wise_edge.runtimes.policy.llama import LlamaPolicy

SCENES = SceneDataset("test")
QUERIES = [SCENES[place].query for place in range(11)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    policy = PolicyGguf(resolve_checkpoint("embedded", "policy"))
    policy.write_text(folder / "text.gguf", "F16", lambda *_: None)
    policy.write_vision(folder / "vision.gguf", "F16", lambda *_: None)
    return folder / "text.gguf", folder / "vision.gguf"


def open_policy(files: tuple[Path, Path]) -> LlamaPolicy:
    bundle = load(resolve_bundle("embedded"))
    return LlamaPolicy("llama", bundle.manifest.policy, *files, bundle.file("policy.tokenizer"), threads=1)


@pytest.fixture(scope="module")
def policy(files: tuple[Path, Path]) -> LlamaPolicy:
    return open_policy(files)


@pytest.fixture
def calls(policy: LlamaPolicy, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the language model was run over an image, and over anything else."""
    counts = {"append_image": 0, "append_each": 0}
    for name in counts:
        original: Callable[..., Any] = getattr(policy._model, name)

        def count(*arguments: Any, _name: str = name, _run: Callable[..., Any] = original, **named: Any) -> Any:
            counts[_name] += 1
            return _run(*arguments, **named)

        monkeypatch.setattr(policy._model, name, count)
    return counts


@pytest.mark.parametrize("variant", ["wise-s", "answer"])
def test_queries_of_a_batch_are_answered_as_one_by_one(
    policy: LlamaPolicy, calls: dict[str, int], variant: str
) -> None:
    frame = policy.encode(SCENES[0].image)
    single = [policy.generate(frame, Request(query, variant)) for query in QUERIES]
    before = dict(calls)

    together = policy.generate_many(frame, [Request(query, variant) for query in QUERIES])

    assert [output.text for output in together] == [output.text for output in single]
    assert [output.tokens for output in together] == [output.tokens for output in single]
    steps = [output.tokens.decode_steps + 1 for output in single]  # with the prompt's
    groups = [steps[:MAX_SEQUENCES], steps[MAX_SEQUENCES:]]
    assert calls["append_each"] - before["append_each"] == sum(max(group) for group in groups)
    assert calls["append_image"] == before["append_image"]
    assert policy.generate(frame, Request(QUERIES[3], variant)).text == single[3].text  # the forks are gone


def test_a_batch_has_no_more_queries_than_there_is_room_for(policy: LlamaPolicy) -> None:
    long = "the red ring at the left of the large blue star " * 15
    frame = policy.encode(SCENES[0].image)

    together = policy.generate_many(frame, [Request(query, "wise-s") for query in (long, *QUERIES[:2])])

    assert [o.text for o in together] == [
        policy.generate(frame, Request(q, "wise-s")).text for q in (long, *QUERIES[:2])
    ]


def test_two_frames_in_turn_cost_no_picture_again(policy: LlamaPolicy, calls: dict[str, int]) -> None:
    frames = [policy.encode(SCENES[place].image) for place in (0, 1)]
    expected = []
    for place in (0, 1):  # each by itself, never moved
        alone = policy.encode(SCENES[place].image)
        expected.append([policy.generate(alone, Request(query, "wise-s")).text for query in QUERIES[:4]])
        del alone
    before = calls["append_image"]

    found = [[policy.generate(frame, Request(query, "wise-s")).text for frame in frames] for query in QUERIES[:4]]

    assert [list(column) for column in zip(*found, strict=True)] == expected
    assert calls["append_image"] - before <= 1  # the second was released by the frames above
    assert all(frame.state is not None for frame in frames)


def test_a_frame_that_nobody_holds_is_not_kept(policy: LlamaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(policy._model, "save", lambda: saved.append(1))
    for place in range(3):
        frame = policy.encode(SCENES[place].image)
        del frame
    assert saved == []


def test_a_draft_changes_the_calls_and_not_the_text(policy: LlamaPolicy) -> None:
    frame = policy.encode(SCENES[0].image)
    plain = [policy.generate(frame, Request(query, "wise-s")) for query in QUERIES]
    pairs = zip(QUERIES, plain, strict=True)
    right = [policy.generate(frame, Request(query, "wise-s", draft=output.text)) for query, output in pairs]
    wrong = [policy.generate(frame, Request(query, "wise-s", draft=plain[-1].text)) for query in QUERIES[:-1]]

    assert [output.text for output in right] == [output.text for output in plain]
    assert [output.text for output in wrong] == [output.text for output in plain[:-1]]
    assert all(output.tokens.decode_steps <= 1 for output in right)
    assert all(w.tokens.decode_steps <= p.tokens.decode_steps for w, p in zip(wrong, plain, strict=False))
    assert [output.tokens.forced for output in right] == [output.tokens.forced for output in plain]


def test_a_long_draft_asks_for_bounded_logits(policy: LlamaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = policy.encode(SCENES[0].image)
    plain = policy.generate(frame, Request(QUERIES[0], "wise-s"))
    monkeypatch.setattr(llama, "_DRAFT_BYTES", 4 * 10 * policy._text.vocabulary)
    append, asked = policy._model.append, list[int]()

    def run(tokens: Sequence[int], position: int, *, rows: int = 1) -> npt.NDArray[np.float32]:
        asked.append(rows)
        return append(tokens, position, rows=rows)

    monkeypatch.setattr(policy._model, "append", run)
    drafted = policy.generate(frame, Request(QUERIES[0], "wise-s", draft=plain.text))

    assert drafted.text == plain.text
    assert asked[0] == max(asked) == 11
    assert 1 < drafted.tokens.decode_steps < plain.tokens.decode_steps


def test_a_cancelled_query_ends_before_the_next_call(
    policy: LlamaPolicy, calls: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, cancel = policy.encode(SCENES[0].image), Event()
    expected = policy.generate(frame, Request(QUERIES[0], "wise-s")).text
    counted = policy._model.append_each

    def append(pieces: Any, **named: Any) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = counted(pieces, **named)
        if calls["append_each"] - before == 3:
            cancel.set()
        return rows

    monkeypatch.setattr(policy._model, "append_each", append)
    for ask in (
        lambda cancel: policy.generate(frame, Request(QUERIES[0], "wise-s", cancel=cancel)),
        lambda cancel: policy.generate_many(frame, [Request(query, "wise-s", cancel=cancel) for query in QUERIES[:3]]),
    ):
        cancel.clear()
        before = calls["append_each"]
        with pytest.raises(QueryCancelledError):
            ask(cancel)
        assert calls["append_each"] - before == 3
        cancel.clear()
        before = calls["append_each"] + 1000
        assert policy.generate(frame, Request(QUERIES[0], "wise-s")).text == expected


def test_after_a_failure_the_next_query_is_answered(policy: LlamaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [policy.encode(SCENES[place].image) for place in (0, 1)]
    expected = [policy.generate(frame, Request(QUERIES[0], "wise-s")).text for frame in frames]
    llama = policy._model._llama
    for name, result in (("llama_decode", 1), ("llama_state_seq_set_data", 0)):
        for frame, text in zip(frames, expected, strict=True):
            with monkeypatch.context() as patch:
                patch.setattr(llama, name, lambda *_, _result=result: _result)
                with pytest.raises(WiseEdgeError, match=r"llama\.cpp (failed|cannot restore)"):
                    policy.generate(frame, Request(QUERIES[0], "wise-s"))
            assert policy.generate(frame, Request(QUERIES[0], "wise-s")).text == text


def test_logits_of_a_fork_and_of_a_restored_state_are_those_from_scratch(files: tuple[Path, Path]) -> None:
    model = LlamaModel(*files, 512, threads=1, exact=True)
    spec = load(resolve_bundle("embedded")).manifest.policy
    rng = np.random.default_rng(0)
    before, behind = rng.integers(0, 500, 12).tolist(), rng.integers(0, 500, 9).tolist()
    picture = model.encode(rng.integers(0, 256, (*spec.picture_size((1, 1)), 3), np.uint8))
    model.append(before, 0)
    position = model.append_image(picture, len(before))
    expected = model.append(behind, position, rows=len(behind))
    model.truncate(position)
    state = model.save()

    model.truncate(0)
    model.append(behind, 0)  # something else
    model.restore(state)
    restored = model.append(behind, position, rows=len(behind))
    model.truncate(position)
    model.fork(position, 3)
    forked = model.append_each([Piece(behind, position, place) for place in range(3)], rows=len(behind))
    model.join()

    np.testing.assert_allclose(restored, expected, atol=0.05)
    # Cells lie in another order, and so do the sums; activations are rounded to half precision in between.
    np.testing.assert_allclose(forked.reshape(3, *expected.shape), np.stack([expected] * 3), atol=0.05)
    assert np.abs(expected).max() > 3
