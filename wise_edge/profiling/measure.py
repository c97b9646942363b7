"""What a mask costs on this device: milliseconds by phase, tokens, memory, accuracy, and windows for a meter.

Latencies are of whole queries, each on an image that is new to the session, by the phases' own clock readings, while
no sensor is read. For energy one thing is done again and again in a window of a second and more: the whole query, and
each part of it alone, since a sensor resolves no single phase of a few milliseconds. What an image counts for is done
in whole rounds of the same few images, so that fast and slow devices average the same ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError
from wise_edge.metrics import bootstrap_interval, giou_ciou, measure_overlap, sample_ious
from wise_edge.profiling.footprint import Footprint, read_footprint, reset_peak
from wise_edge.profiling.marks import MarkedMask, MarkedPolicy, Span, SpanRecorder, covered_s
from wise_edge.profiling.meter import Meter, Window
from wise_edge.runtimes.base import Decoding, SegmentationResult
from wise_edge.runtimes.session import Session

WARM_UP = 3
ENERGY_EXAMPLES = 8
"""How many examples a round of a window asks: the first ones."""
PARTS = ("query", "policy_frame", "policy_write", "mask_encode", "mask_decode")
"""What energy is measured of: a query on a new image, and alone the policy's work on the image, its work on the
query, the segmenter's on the image, and a mask."""
PHASES = ("preprocess", "vision_encode", "prefill", "decode", "mask_encode", "mask_decode")
"""Phases of a query. Their sum, less "overlap" (what ran side by side), with "other" (what lies between them), is
"total"."""


@dataclass(frozen=True)
class Spread:
    """Readings in ms, outliers included; `interval` is the mean's, 95 %, over the examples that were asked."""

    p50: float
    p90: float
    p99: float
    mean: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, readings: Sequence[Reading], name: str) -> Spread:
        """Describe one of the times of readings."""
        values = [reading.latency_ms[name] for reading in readings]
        p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
        means = [float(np.mean([reading.latency_ms[name] for reading in each])) for each in _by_example(readings)]
        independent = means if len(means) > 1 else values  # repeats of a query are not samples of queries
        return cls(p50, p90, p99, float(np.mean(values)), bootstrap_interval(independent))


@dataclass(frozen=True)
class Reading:
    """One query.

    Attributes:
        example: id of the image and query.
        latency_ms: each of `PHASES`, "overlap", "other", "total" and "first_token", from the image to the moment
            when the policy could name its first token.
        rationale_tokens: tokens of the rationale.
        answer_tokens: tokens of the answer.
        decode_steps: runs of the language model behind the prompt.
        valid: whether an answer could be read.
        intersection_px: pixels of the mask that are the target's; None without a truth.
        union_px: pixels of mask or target; None without a truth.
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
class Accuracy:
    """How good the masks are, fractions with their 95 % intervals.

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
        """Return the figures of readings; None where one has no truth."""
        if any(reading.union_px is None for reading in readings):
            return None
        tops = [sum(reading.intersection_px or 0 for reading in each) for each in _by_example(readings)]
        bottoms = [sum(reading.union_px or 0 for reading in each) for each in _by_example(readings)]
        giou, ciou = giou_ciou(tops, bottoms)
        return cls(ciou, bootstrap_interval(tops, bottoms), giou, bootstrap_interval(sample_ious(tops, bottoms)))


@dataclass(frozen=True)
class Measured:
    """What a variant did on a pair of backends.

    Attributes:
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's.
        warm_up: how many queries went before and do not count.
        readings: what counts.
        median: spans of the query whose total is the median one: of those whose energy was measured, if any were.
        median_total_ms: its total.
        memory: what the process took at most while all variants were asked.
        windows: for each of `PARTS`, when it was repeated; None without anything that tells power.
        write_steps: runs of the language model in one turn of "policy_write".
        on_gpu: whether a part of the work runs on a GPU.
    """

    variant: str
    policy: str
    mask: str
    warm_up: int
    readings: tuple[Reading, ...]
    median: tuple[Span, ...]
    median_total_ms: float
    memory: Footprint
    windows: dict[str, Window | None]
    write_steps: int
    on_gpu: bool

    @property
    def latency_ms(self) -> dict[str, Spread]:
        """Each name of `Reading.latency_ms` to its spread."""
        names = self.readings[0].latency_ms
        return {name: Spread.of(self.readings, name) for name in names}

    @property
    def accuracy(self) -> Accuracy | None:
        """How good the masks are; None where a query has no true mask."""
        return Accuracy.of(self.readings)

    def mean(self, field: str) -> float:
        """Return the mean of one of the counts of `Reading`."""
        return float(np.mean([getattr(reading, field) for reading in self.readings]))

    @property
    def step_ms(self) -> float | None:
        """Decoding for each run of the language model; None where there was none."""
        steps = sum(reading.decode_steps for reading in self.readings)
        return sum(reading.latency_ms["decode"] for reading in self.readings) / steps if steps else None


def profile_session(
    session: Session, examples: Sequence[Example], variants: Sequence[str], repeat: int, meter: Meter
) -> Iterator[Measured]:
    """Measure what queries cost.

    Variants take turns on every image, so that what changes on the device meanwhile changes them alike.

    Args:
        session: what is measured; the images are asked afresh.
        examples: images and queries.
        variants: prompt variants.
        repeat: how often each is asked.
        meter: of energy, running.

    Yields:
        What each variant did, once its energy is measured too; all that there is where it was interrupted or failed.

    Raises:
        UsageError: there is no example.
        BaseException: what interrupted it, after all was yielded.
    """
    if not examples or repeat < 1:
        raise UsageError("a profile needs at least one image, asked at least once")
    askers = [_Asker(session, variant) for variant in variants]
    failure: BaseException | None = None
    try:
        for asker in askers:
            for number in range(WARM_UP):
                asker.ask(examples[number % len(examples)])
            asker.forget()
        reset_peak()
        with meter.resting():
            for example in (example for _ in range(repeat) for example in examples):
                for asker in askers:
                    asker.readings.append(asker.ask(example))
    except BaseException as error:
        failure = error
    memory = read_footprint()
    for asker in askers:
        if failure is None:
            try:
                asker.record_parts(examples, meter)
            except BaseException as error:
                failure = error
        if asker.readings:
            yield asker.measured(memory)
    if failure is not None:
        raise failure


class _Asker:
    """Asks a session one variant, with backends that note their phases.

    Attributes:
        readings: of the queries that count.
    """

    def __init__(self, session: Session, variant: str) -> None:
        self._plain = session
        self._marks = SpanRecorder()
        self._session = session.afresh()
        self._session.policy = MarkedPolicy(session.policy, self._marks)
        self._session.mask = MarkedMask(session.mask, self._marks)
        self._variant = variant
        self._asked: list[tuple[float, tuple[Span, ...]]] = []
        self._windows: dict[str, Window | None] = dict.fromkeys(PARTS)
        self._write_steps = 0
        self.readings: list[Reading] = []

    def ask(self, example: Example) -> Reading:
        """Ask a query on an image that is new to the session."""
        result = self._session.afresh().segment(example.image, example.query, self._variant)
        spans = tuple(self._marks.take())
        self._asked.append((result.latency_ms.total, spans))
        return _read(example, result, spans)

    def forget(self) -> None:
        """Let what was asked so far not count."""
        self._asked = []

    def record_parts(self, examples: Sequence[Example], meter: Meter) -> None:
        """Do each of `PARTS` again and again, for the meter."""
        policy, mask = self._plain.policy, self._plain.mask
        first = examples[0]
        shown = self._plain.segment(first.image, first.query, self._variant)
        self._write_steps = shown.tokens.decode_steps
        frame, mask_frame = policy.encode(first.image), mask.encode(first.image)
        height, width, _ = first.image.shape
        box, points = shown.box or (0, 0, width, height), shown.points or ((width // 2, height // 2),)
        round_of = examples[:ENERGY_EXAMPLES]
        turns = itertools.cycle(round_of)
        work: dict[str, tuple[Callable[[], Any], int]] = {
            "query": (lambda: self.ask(next(turns)), len(round_of)),
            "policy_frame": (lambda: policy.encode(next(turns).image), len(round_of)),
            "policy_write": (lambda: policy.generate(frame, first.query, shown.variant, Decoding()), 1),
            "mask_encode": (lambda: mask.encode(next(turns).image), len(round_of)),
            "mask_decode": (lambda: mask.decode(mask_frame, box, points), 1),
        }
        asked, self._asked = self._asked, []
        try:
            for part in PARTS:
                self._windows[part] = meter.record(*work[part])
        finally:
            self._asked = self._asked or asked  # those with power beside them, if any

    def measured(self, memory: Footprint) -> Measured:
        """Return all that was measured."""
        shots = sorted(self._asked, key=lambda shot: shot[0])
        total_ms, spans = shots[(len(shots) - 1) // 2]
        return Measured(
            variant=self._variant,
            policy=self._plain.policy.name,
            mask=self._plain.mask.name,
            warm_up=WARM_UP,
            readings=tuple(self.readings),
            median=spans,
            median_total_ms=total_ms,
            memory=memory,
            windows=self._windows,
            write_steps=self._write_steps,
            on_gpu=self._plain.on_gpu,
        )


def _by_example(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Return readings by what was asked; more repeats of that make nothing surer of other queries."""
    found: dict[str, list[Reading]] = {}
    for reading in readings:
        found.setdefault(reading.example, []).append(reading)
    return list(found.values())


def _read(example: Example, result: SegmentationResult, spans: Sequence[Span]) -> Reading:
    spent = asdict(result.latency_ms)
    total = spent.pop("total")
    covered = covered_s(spans) * 1e3
    first_token_s = max(span.end_s for span in spans if span.phase == "prefill")
    latency_ms = spent | {
        "overlap": max(0.0, sum(spent.values()) - covered),
        "other": total - covered,
        "total": total,
        "first_token": (first_token_s - min(span.start_s for span in spans)) * 1e3,
    }
    overlap = None if example.mask is None else measure_overlap(result.mask, example.mask, example.ignore, "lisa")
    return Reading(
        example=example.id,
        latency_ms=latency_ms,
        rationale_tokens=result.tokens.rationale,
        answer_tokens=result.tokens.answer,
        decode_steps=result.tokens.decode_steps,
        valid=result.answer_valid,
        intersection_px=overlap.intersection_px if overlap else None,
        union_px=overlap.union_px if overlap else None,
    )
