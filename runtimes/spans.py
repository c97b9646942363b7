"""When the phases of a query ran, on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PHASES = ("preprocess", "vision_encode", "prefill", "decode", "mask_encode", "mask_decode")
"""Phases of a query. Their sum, minus "overlap" (time in which two ran at once), plus "other" (time between them), is
"total"."""


@dataclass(frozen=True)
class Span:
    """A phase of one query.

    Attributes:
        phase: one of `PHASES`.
        start_s: when it began, in seconds of `time.perf_counter`.
        ms: how long it took.
    """

    phase: str
    start_s: float
    ms: float

    @property
    def end_s(self) -> float:
        """When it ended, on the same clock."""
        return self.start_s + self.ms / 1e3


def lay_spans(start_s: float, **phases_ms: float) -> list[Span]:
    """Return the spans of phases that ran one after the other, from a moment on."""
    spans: list[Span] = []
    for phase, ms in phases_ms.items():
        spans.append(Span(phase, spans[-1].end_s if spans else start_s, ms))
    return spans


def covered_s(spans: Sequence[Span]) -> float:
    """Return the time in which at least one phase ran."""
    covered, reached_s = 0.0, -float("inf")
    for span in sorted(spans, key=lambda span: span.start_s):
        covered += max(0.0, span.end_s - max(span.start_s, reached_s))
        reached_s = max(reached_s, span.end_s)
    return covered
