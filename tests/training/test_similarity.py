"""Similarity of texts: pairs in one call, texts without a direction, and the encoder that comes as a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.wise.similarity import DEFAULT_MODEL, TransformerEncoder, cosine_similarities, load_encoder
from wise_edge.training.wise.trainer import WiseTrainer


class Table:
    """An encoder that looks vectors up; it keeps what it was asked."""

    def __init__(self, **vectors: list[float]) -> None:
        self.vectors = vectors
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        return np.array([self.vectors[text] for text in texts], np.float32)


def test_pairs_are_compared_in_one_call() -> None:
    table = Table(a=[1, 0], b=[0.6, 0.8], c=[-1, 0])
    similarities = cosine_similarities(table, ["a", "a", "a", "b"], ["a", "b", "c", "a"])
    assert similarities.dtype == np.float64
    np.testing.assert_allclose(similarities, [1.0, 0.6, -1.0, 0.6], atol=1e-7)
    assert table.calls == [["a", "b", "c"]]


def test_texts_without_a_direction_resemble_nothing() -> None:
    table = Table(a=[1, 0], zero=[0, 0], nan=[float("nan")] * 2, inf=[float("inf"), 0])
    assert cosine_similarities(table, ["a", "a", "a"], ["zero", "nan", "inf"]).tolist() == [0.0, 0.0, 0.0]


def test_no_pairs_need_no_encoder() -> None:
    table = Table()
    assert cosine_similarities(table, [], []).shape == (0,)
    assert table.calls == []
    with pytest.raises(ValueError, match="cannot pair 1 texts with 2"):
        cosine_similarities(table, ["a"], ["a", "b"])


def test_rounding_stays_within_1() -> None:
    assert cosine_similarities(Table(a=[1.0001, 0]), ["a"], ["a"])[0] == 1.0


@pytest.mark.slow
def test_models_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("no-such/model", str(tmp_path / "nowhere")):
        with pytest.raises(UsageError, match=f"similarity model {name}: cannot be loaded .*; use {DEFAULT_MODEL}"):
            load_encoder(name, "cpu")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_encoder(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text("{torn")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_encoder(str(tmp_path), "cpu")


@pytest.mark.slow
def test_the_default_encoder_tells_similar_texts_from_others() -> None:
    encoder = load_encoder(DEFAULT_MODEL, "cpu")
    concise = "<think>The red ring on the left is the one asked for.</think>"
    detailed = "<d_think>There are two rings. The red ring stands on the left, so it is the one asked for.</d_think>"
    other = "<d_think>Interest rates rose again last quarter, which worried the bank.</d_think>"
    vectors = encoder.encode([concise, detailed, other])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    similar, different = cosine_similarities(encoder, [concise, concise], [detailed, other])
    assert similar > 0.7 > different
    again = encoder.encode([detailed, concise])[1]
    np.testing.assert_allclose(again, vectors[0], atol=5e-3)  # but for rounding in bfloat16, order means nothing


class Model:
    """A model of sentence-transformers, as far as it is used, that reads up to `max_seq_length` words."""

    def __init__(self, max_seq_length: float | None) -> None:
        self.max_seq_length = max_seq_length

    def tokenizer(
        self, texts: list[str], *, truncation: bool, padding: bool, verbose: bool
    ) -> dict[str, list[list[str]]]:
        assert not truncation
        assert not padding
        return {"input_ids": [text.split() for text in texts]}

    def encode(self, texts: list[str], **_: object) -> NDArray[np.float32]:
        return np.ones((len(texts), 2), np.float32)


def test_texts_that_the_model_does_not_read_to_the_end_are_counted() -> None:
    encoder = TransformerEncoder(Model(3), "cpu", bf16=False)
    cosine_similarities(encoder, ["a b c", "a b c d"], ["a", "a b c d"])
    assert (encoder.max_tokens, encoder.encoded, encoder.cut) == (3, 3, 1)
    cosine_similarities(encoder, ["a b c d e"], ["a"])
    assert (encoder.encoded, encoder.cut) == (5, 2)
    assert "2 of 5 rationales are longer than the 3 tokens" in encoder.describe_cut(5, 2)
    for limit in (None, float("inf")):  # StaticEmbedding says inf
        endless = TransformerEncoder(Model(limit), "cpu", bf16=False)
        endless.encode(["a b c d"])
        assert (endless.max_tokens, endless.cut) == (None, 0)


def test_a_step_logs_what_was_cut_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = TransformerEncoder(Model(3), "cpu", bf16=False)
    logged: list[tuple[str, float]] = []
    step = SimpleNamespace(
        _rewards=SimpleNamespace(encoder=encoder),
        _log_metric=lambda *metric: logged.append(metric),
        is_world_process_zero=lambda: True,
    )
    said = []
    for texts in (["a"], ["a b c d", "b", "c", "d"], ["a b c d", "b"], []):
        with WiseTrainer._cut_rationales_counted(step):  # type: ignore[arg-type]
            cosine_similarities(encoder, texts, texts)
        said.append(capsys.readouterr().err)
    assert logged == [("rationales_cut", 0.0), ("rationales_cut", 0.25), ("rationales_cut", 0.5)]
    assert [len(line) > 0 for line in said] == [False, True, False, False]
    assert said[1].startswith("note: 1 of 4 rationales are longer than the 3 tokens")


@pytest.mark.slow
def test_the_default_encoder_counts_by_its_own_limit() -> None:
    encoder = load_encoder(DEFAULT_MODEL, "cpu")
    assert encoder.max_tokens == encoder._model.max_seq_length == 256
    encoder.encode(["red " * 254, "red " * 255])  # with its two special tokens, 256 and 257
    assert (encoder.encoded, encoder.cut) == (2, 1)
    a, b = encoder.encode(["red " * 300, "red " * 300 + "interest rates rose"])
    np.testing.assert_allclose(a, b, atol=5e-3)  # the rest is not read
