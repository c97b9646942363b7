"""When the phases of a query began and ended, on one clock: backends that note it while a session uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point
from wise_edge.runtimes.base import (
    Decoding,
    MaskBackend,
    MaskFrame,
    MaskOutput,
    PolicyBackend,
    PolicyFrame,
    PolicyOutput,
)


@dataclass(frozen=True)
class Span:
    """A phase of one query.

    Attributes:
        phase: a field of `Latencies`.
        start_s: when it began.
        end_s: when it ended.
    """

    phase: str
    start_s: float
    end_s: float


@dataclass
class SpanRecorder:
    """The spans of what ran since they were last taken.

    Attributes:
        clock: seconds.
        spans: in the order of their ends; threads may add some.
    """

    clock: Callable[[], float] = time.perf_counter
    spans: list[Span] = field(default_factory=list)

    def lay(self, start_s: float, **phases_ms: float) -> None:
        """Note phases that ran one after the other."""
        for phase, length_ms in phases_ms.items():
            end_s = start_s + length_ms / 1e3
            self.spans.append(Span(phase, start_s, end_s))
            start_s = end_s

    def take(self) -> list[Span]:
        """Return the spans and begin anew."""
        taken, self.spans = self.spans, []
        return taken


def covered_s(spans: Sequence[Span]) -> float:
    """Return the time in which at least one phase ran."""
    covered, reached_s = 0.0, -float("inf")
    for span in sorted(spans, key=lambda span: span.start_s):
        covered += max(0.0, span.end_s - max(span.start_s, reached_s))
        reached_s = max(reached_s, span.end_s)
    return covered


class MarkedPolicy:
    """A policy backend that notes its phases.

    Args:
        policy: does the work.
        marks: where they are noted.
    """

    def __init__(self, policy: PolicyBackend[Any], marks: SpanRecorder) -> None:
        self._policy, self._marks = policy, marks
        self.name = policy.name
        self.input_size = policy.input_size
        self.default_variant = policy.default_variant

    def encode(self, image: npt.NDArray[np.uint8]) -> PolicyFrame:
        """As `PolicyBackend.encode`."""
        start_s = self._marks.clock()
        frame: PolicyFrame = self._policy.encode(image)
        spent = {"vision_encode": frame.vision_encode_ms, "prefill": frame.prefill_ms}
        self._marks.lay(start_s, preprocess=frame.preprocess_ms, **spent)
        return frame

    def generate(self, frame: PolicyFrame, query: str, variant: str, decoding: Decoding) -> PolicyOutput:
        """As `PolicyBackend.generate`."""
        start_s = self._marks.clock()
        output = self._policy.generate(frame, query, variant, decoding)
        self._marks.lay(start_s, prefill=output.prefill_ms, decode=output.decode_ms)
        return output


class MarkedMask:
    """A mask backend that notes its phases.

    Args:
        mask: does the work.
        marks: where they are noted.
    """

    def __init__(self, mask: MaskBackend[Any], marks: SpanRecorder) -> None:
        self._mask, self._marks = mask, marks
        self.name = mask.name

    def encode(self, image: npt.NDArray[np.uint8]) -> MaskFrame:
        """As `MaskBackend.encode`."""
        start_s = self._marks.clock()
        frame: MaskFrame = self._mask.encode(image)
        self._marks.lay(start_s, preprocess=frame.preprocess_ms, mask_encode=frame.encode_ms)
        return frame

    def decode(
        self, frame: MaskFrame, box: Box, points: tuple[Point, ...], previous: npt.NDArray[np.float32] | None = None
    ) -> MaskOutput:
        """As `MaskBackend.decode`."""
        start_s = self._marks.clock()
        found = self._mask.decode(frame, box, points, previous)
        self._marks.lay(start_s, mask_decode=found.decode_ms)
        return found
