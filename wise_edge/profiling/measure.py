"""Measures what a mask costs on this device: latency by phase, tokens, memory, accuracy, and windows for a meter.

Latencies are those of complete queries, each on an image that is new to the session, by the phases' own clock readings,
while no sensor is read. For energy, one thing is repeated in a window of a second or more: the complete query, and each
part of it on its own, because no sensor resolves a phase of a few milliseconds. Parts that depend on the image are
repeated in complete rounds over the same few images, so that fast and slow devices average the same ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError
from wise_edge.metrics import measure_overlap
from wise_edge.profiling.footprint import Footprint, read_footprint, reset_peak
from wise_edge.profiling.meter import Meter
from wise_edge.profiling.readings import PARTS, Measured, Reading, Timeline
from wise_edge.profiling.windows import Window
from wise_edge.runtimes.base import MaskPrompt, Request
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.spans import covered_s

WARM_UP = 3
ENERGY_EXAMPLES = 8
"""A round of a window asks the first examples, at most this many."""


def profile_session(
    session: Session, examples: Sequence[Example], variants: Sequence[str], repeat: int, meter: Meter
) -> Iterator[Measured]:
    """Measure what queries cost.

    Variants take turns on every image, so that changes of the device's state affect them equally.

    Args:
        session: what is measured; every query sees its image as a new one.
        examples: images and queries.
        variants: prompt variants.
        repeat: how often each query is asked.
        meter: measures energy; it must be running.

    Yields:
        What each variant did, once its energy is measured too; if interrupted, everything measured until then.

    Raises:
        UsageError: there is no example.
        BaseException: what interrupted it, after everything was yielded.
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
    """Asks a session in one variant.

    Attributes:
        readings: the queries that count.
    """

    def __init__(self, session: Session, variant: str) -> None:
        self._session = session
        self._variant = variant
        self._asked: list[Timeline] = []
        self._windows: dict[str, Window | None] = dict.fromkeys(PARTS)
        self._write_steps = 0
        self.readings: list[Reading] = []

    def ask(self, example: Example) -> Reading:
        """Ask a query on an image that is new to the session."""
        self._session.forget()
        result = self._session.segment(example.image, example.query, self._variant)
        self._asked.append(Timeline(result.latency_ms.total, result.spans))
        return _read(example, result)

    def forget(self) -> None:
        """Discard what was asked so far."""
        self._asked = []

    def record_parts(self, examples: Sequence[Example], meter: Meter) -> None:
        """Repeat each of `PARTS` for the meter."""
        policy, mask = self._session.policy, self._session.mask
        first = examples[0]
        shown = self._session.segment(first.image, first.query, self._variant)
        self._write_steps = shown.tokens.decode_steps
        policy_image, mask_image = policy.encode(first.image), mask.encode(first.image)
        request = Request(first.query, shown.variant)
        height, width, _ = first.image.shape
        prompts = [MaskPrompt(item.box, item.points) for item in shown.objects]
        prompts = prompts or [MaskPrompt((0, 0, width, height), ((width // 2, height // 2),))]
        round_of = examples[:ENERGY_EXAMPLES]
        turns = itertools.cycle(round_of)
        work: dict[str, tuple[Callable[[], Any], int]] = {
            "query": (lambda: self.ask(next(turns)), len(round_of)),
            "policy_frame": (lambda: policy.encode(next(turns).image), len(round_of)),
            "policy_write": (lambda: policy.generate(policy_image, request), 1),
            "mask_encode": (lambda: mask.encode(next(turns).image), len(round_of)),
            "mask_decode": (lambda: mask.decode_many(mask_image, prompts), 1),
        }
        asked, self._asked = self._asked, []
        try:
            for part in PARTS:
                self._windows[part] = meter.record(*work[part])
        finally:
            self._asked = self._asked or asked  # prefer queries during which power was read

    def measured(self, memory: Footprint) -> Measured:
        """Return all that was measured."""
        asked = sorted(self._asked, key=lambda timeline: timeline.total_ms)
        return Measured(
            variant=self._variant,
            policy=self._session.policy.name,
            mask=self._session.mask.name,
            warm_up=WARM_UP,
            readings=tuple(self.readings),
            median=asked[(len(asked) - 1) // 2],
            memory=memory,
            windows=self._windows,
            write_steps=self._write_steps,
            on_gpu=self._session.on_gpu,
        )


def _read(example: Example, result: SegmentationResult) -> Reading:
    spans = result.spans
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
