"""Comparison of a GGUF export with torch, token by token over torch's own answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.manifest import Figure
from wise_edge.export.precisions import LOGIT_TOLERANCES
from wise_edge.export.source.reference import Reference
from wise_edge.native.llama import LlamaModel


def verify_gguf(
    references: Sequence[Reference], text: Path, vision: Path, context: int, kind: str, vision_kind: str
) -> Iterator[Figure]:
    """Compare two GGUF files with the checkpoint.

    Args:
        references: torch's answers.
        text: the language model.
        vision: the vision tower.
        context: length of the longest sequence in tokens.
        kind: type of the language model's matrices.
        vision_kind: type of the vision tower's.

    Yields:
        The share of greedy tokens that agree (1 is required for F32 and F16; other types only report it), and the
        largest difference of logits (bounded for F32, F16 and BF16).
    """
    bounds = [LOGIT_TOLERANCES.get(name) for name in (kind, vision_kind)]
    bound = None if None in bounds else max(filter(None, bounds))
    model = LlamaModel(text, vision, context, exact=kind == vision_kind == "F32")
    same, tokens, worst = 0, 0, 0.0
    for reference in references:
        logits = _forced(model, reference)
        same += int((logits.argmax(1) == reference.logits.argmax(1)).sum())
        tokens += len(logits)
        scale = max(1.0, float(np.abs(reference.logits).max()))
        worst = max(worst, float(np.abs(logits - reference.logits).max()) / scale)
    model.close()
    all_of_them = 1.0 if bound is not None and bound <= LOGIT_TOLERANCES["F16"] else None
    yield Figure("policy.gguf greedy tokens that are torch's", same / tokens, "share", at_least=all_of_them)
    yield Figure("policy.gguf logits", worst, "relative error", at_most=bound)


def _forced(model: LlamaModel, reference: Reference) -> npt.NDArray[np.float32]:
    """Return the logits from which llama.cpp would choose each token of an answer, [completion, vocabulary]."""
    picture = model.encode(reference.image)
    model.truncate(0)
    model.append(reference.before, 0)
    position = model.append_image(picture, len(reference.before))
    tokens = [*reference.after, *reference.completion[:-1]]
    steps = model.append(tokens, position, rows=len(tokens))
    return steps[len(reference.after) - 1 :]
