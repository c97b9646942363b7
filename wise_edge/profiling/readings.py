"""What was read while queries ran: latency by phase, tokens and overlap for each query, and statistics over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wise_edge.metrics import bootstrap_interval, giou_ciou, sample_ious
from wise_edge.profiling.footprint import Footprint
from wise_edge.profiling.windows import Window
from wise_edge.runtimes.spans import Span

PARTS = ("query", "policy_frame", "policy_write", "mask_encode", "mask_decode")
"""What energy is measured of: a query on a new image; and each part on its own: the policy's work on the image, its
work on the query, the segmenter's work on the image, and a mask."""


@dataclass(frozen=True)
class Reading:
    """One query.

    Attributes:
        example: id of the image and query.
        latency_ms: each of `wise_edge.runtimes.spans.PHASES`, "overlap", "other", "total", and "first_token": from
            receiving the image until the policy could name its first token.
        rationale_tokens: tokens of the rationale.
        answer_tokens: tokens of the answer.
        decode_steps: runs of the language model after the prompt.
        valid: whether the answer could be read.
        intersection_px: mask pixels that belong to the target; None without ground truth.
        union_px: pixels of the mask or the target; None without ground truth.
    """

    example: str
    latency_ms: dict[str, float]
    rationale_tokens: int
    answer_tokens: int
    decode_steps: int
    valid: bool
    intersection_px: int | None
    union_px: int | None


@dataclass(frozen=True)
class Spread:
    """Latencies in ms, outliers included; `interval` is the 95 % interval of the mean, over the examples."""

    p50: float
    p90: float
    p99: float
    mean: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, readings: Sequence[Reading], name: str) -> Spread:
        """Summarize one of the latencies of readings."""
        values = [reading.latency_ms[name] for reading in readings]
        p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
        means = [float(np.mean([reading.latency_ms[name] for reading in each])) for each in _by_example(readings)]
        independent = means if len(means) > 1 else values  # repeats of a query are not samples of queries
        return cls(p50, p90, p99, float(np.mean(values)), bootstrap_interval(independent))


@dataclass(frozen=True)
class Accuracy:
    """How good the masks are: fractions with their 95 % intervals.

    Attributes:
        ciou: summed intersection over summed union.
        ciou_interval: its interval.
        giou: mean IoU.
        giou_interval: its interval.
    """

    ciou: float
    ciou_interval: tuple[float, float]
    giou: float
    giou_interval: tuple[float, float]

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Accuracy | None:
        """Return the accuracy of readings; None if one has no ground truth."""
        if any(reading.union_px is None for reading in readings):
            return None
        tops = [sum(reading.intersection_px or 0 for reading in each) for each in _by_example(readings)]
        bottoms = [sum(reading.union_px or 0 for reading in each) for each in _by_example(readings)]
        giou, ciou = giou_ciou(tops, bottoms)
        return cls(ciou, bootstrap_interval(tops, bottoms), giou, bootstrap_interval(sample_ious(tops, bottoms)))


class Timeline(NamedTuple):
    """When the phases of one query ran, and its complete time."""

    total_ms: float
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Measured:
    """What a variant did on a pair of backends.

    Attributes:
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's backend.
        warm_up: how many queries ran first and do not count.
        readings: the queries that count.
        median: the query with the median total, among those whose energy was measured if there are any.
        memory: peak memory of the process while all variants ran.
        windows: for each of `PARTS`, when it was repeated; None without a power source.
        write_steps: runs of the language model in one repetition of "policy_write".
        on_gpu: whether any part of the work runs on a GPU.
    """

    variant: str
    policy: str
    mask: str
    warm_up: int
    readings: tuple[Reading, ...]
    median: Timeline
    memory: Footprint
    windows: dict[str, Window | None]
    write_steps: int
    on_gpu: bool

    @property
    def latency_ms(self) -> dict[str, Spread]:
        """Each name of `Reading.latency_ms` mapped to its spread."""
        names = self.readings[0].latency_ms
        return {name: Spread.of(self.readings, name) for name in names}

    @property
    def accuracy(self) -> Accuracy | None:
        """How good the masks are; None if a query has no ground truth."""
        return Accuracy.of(self.readings)

    def mean(self, field: str) -> float:
        """Return the mean of one of the counts of `Reading`."""
        return float(np.mean([getattr(reading, field) for reading in self.readings]))

    @property
    def step_ms(self) -> float | None:
        """Decoding time for each run of the language model; None if there was none."""
        steps = sum(reading.decode_steps for reading in self.readings)
        return sum(reading.latency_ms["decode"] for reading in self.readings) / steps if steps else None


def _by_example(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Group readings by example: repeats of one query say nothing about other queries."""
    found: dict[str, list[Reading]] = {}
    for reading in readings:
        found.setdefault(reading.example, []).append(reading)
    return list(found.values())
