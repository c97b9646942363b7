"""Chooses the rationale that fits a deadline, from what queries took on this device so far.

The paper (https://arxiv.org/abs/2604.02040) leaves an adaptive budget for future work. Here the richest variant whose
expected time fits is chosen, and its rationale is closed when the time left would not suffice for the answer. Expected
is the 90th percentile of the latest readings of each part: the work on the image, the prompt's words and the mask, one
step of the language model, and the number of steps of a variant. Until a variant has been seen, the paper's mean stands
in for its rationale.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wise_edge.arguments import describe, is_number
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.writing import replacing
from wise_edge.policy.prompts import check_variant

RICHEST_FIRST = ("wise-infer", "wise-s", "answer")
PAPER_TOKENS = {"wise-infer": 38.8, "wise-s": 22.7, "answer": 0.0}
"""Mean rationale on ReasonSeg's test set in tokens, as the paper reports it."""
_KEPT = 32
_SHARE = 0.9
_LONGEST_MS = 1e9
_SHORTEST_STEP_MS = 1e-6


@dataclass(frozen=True)
class DeadlineChoice:
    """What was chosen to meet a deadline.

    Attributes:
        deadline_ms: the deadline, from the image to the mask.
        variant: the prompt variant.
        max_rationale_tokens: the rationale is closed after so many tokens; None for no limit.
        expected_ms: expected time of the query; None if nothing had been measured.
        reason: why.
    """

    deadline_ms: float
    variant: str
    max_rationale_tokens: int | None
    expected_ms: float | None
    reason: str


class LatencyHistory:
    """The latest measurements of one device, bundle and choice of backends."""

    def __init__(self) -> None:
        self._readings: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    @classmethod
    def read(cls, file: Path) -> LatencyHistory:
        """Return what `write` kept; an empty history if the file is missing or unreadable."""
        history = cls()
        try:
            for name, values in read_json(file).items():
                history._readings[name].extend(_to_reading(value) for value in values)
        except (UsageError, ValueError, TypeError):
            return cls()
        return history

    def write(self, file: Path) -> None:
        """Keep the measurements for another process; raises `OSError` or `WiseEdgeError` if it cannot be written."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            fresh.write_text(to_json({name: list(values) for name, values in self._readings.items()}))

    def observe(self, variant: str, *, frame_ms: float | None, query_ms: float, decode: Decode) -> None:
        """Add a query.

        Args:
            variant: the prompt variant.
            frame_ms: the work on the image; None if an earlier query paid for it.
            query_ms: the prompt's words and the mask.
            decode: writing the completion.
        """
        if frame_ms is not None:
            self._readings["frame_ms"].append(frame_ms)
        self._readings["query_ms"].append(query_ms)
        if decode.steps:
            self._readings["step_ms"].append(decode.ms / decode.steps)
            self._readings["answer_steps"].append(max(0, decode.steps - decode.rationale_tokens))
            self._readings[variant].append(decode.rationale_tokens)

    def choose(
        self, deadline_ms: float, *, new_frame: bool, variants: Collection[str] = RICHEST_FIRST
    ) -> DeadlineChoice:
        """Choose the richest variant that fits.

        Args:
            deadline_ms: from the image to the mask.
            new_frame: whether the work on the image is still to be done.
            variants: those of the policy, with one of `RICHEST_FIRST` at least.
        """
        known = [variant for variant in RICHEST_FIRST if variant in variants]
        cheapest = known[-1]
        needed = ["query_ms", "step_ms", *(["frame_ms"] if new_frame else [])]
        if not all(self._readings[name] for name in (*needed, "answer_steps")):
            reason = f"{cheapest}: nothing was measured on this device yet, and it is the fastest"
            return DeadlineChoice(deadline_ms, cheapest, None, None, reason)
        step_ms = max(_SHORTEST_STEP_MS, _upper(self._readings["step_ms"]))
        least_ms = sum(_upper(self._readings[name]) for name in needed if name != "step_ms")
        least_ms += step_ms * _upper(self._readings["answer_steps"])
        expected = {variant: least_ms + step_ms * self._rationale(variant) for variant in known}
        expectations = ", ".join(f"{variant} {ms:.0f} ms" for variant, ms in expected.items())
        for variant, expected_ms in expected.items():
            if expected_ms <= deadline_ms:
                most = None if variant == cheapest else int((deadline_ms - least_ms) / step_ms)
                reason = f"{variant} is the richest that fits {deadline_ms:g} ms; expected: {expectations}"
                return DeadlineChoice(deadline_ms, variant, most, expected_ms, reason)
        reason = f"{cheapest}: nothing fits {deadline_ms:g} ms, and it is the fastest; expected: {expectations}"
        return DeadlineChoice(deadline_ms, cheapest, None, expected[cheapest], reason)

    def _rationale(self, variant: str) -> float:
        return _upper(self._readings[variant]) if self._readings[variant] else PAPER_TOKENS[variant]


@dataclass(frozen=True)
class Decode:
    """The cost of writing a completion.

    Attributes:
        ms: time.
        steps: runs of the language model.
        rationale_tokens: tokens of the rationale.
    """

    ms: float
    steps: int
    rationale_tokens: int


def check_choice(variants: Collection[str], variant: str | None, deadline_ms: float | None = None) -> None:
    """Check what chooses the prompt variant of a query.

    Args:
        variants: those of the policy.
        variant: the one that was asked for; None for the default.
        deadline_ms: the deadline that chooses it instead; None for none.

    Raises:
        UsageError: the variant is unknown, the deadline is no positive number or has no variant to choose from, or both
            are given.
    """
    if variant is not None:
        check_variant(variant, variants)
    if deadline_ms is None:
        return
    if not any(name in variants for name in RICHEST_FIRST):
        raise UsageError(f"a deadline chooses among {', '.join(RICHEST_FIRST)}; this policy has none of them")
    if not is_number(deadline_ms) or deadline_ms <= 0:
        raise UsageError(f"deadline_ms must be a positive number, got {describe(deadline_ms)}")
    if variant is not None:
        raise UsageError("a deadline chooses the variant; leave the variant out")


def _to_reading(value: object) -> float:
    if not is_number(value) or not 0 <= float(value) <= _LONGEST_MS:  # type: ignore[arg-type]
        raise ValueError
    return float(value)  # type: ignore[arg-type]


def _upper(values: Iterable[float]) -> float:
    return float(np.quantile(list(values), _SHARE))
