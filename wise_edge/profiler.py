"""What a mask costs on this device: milliseconds by phase, and joules where a source tells them surely.

Latencies are of whole queries, each on a picture that is new to the session, by the phases' own clock readings. Energy
is measured over windows of a second and more, in which one thing is done again and again: the whole query, and each
part of it alone, since a sensor resolves no single phase of a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError
from wise_edge.metrics import bootstrap_interval
from wise_edge.power import PowerSource
from wise_edge.power_trace import Energy, PowerSampler
from wise_edge.runtimes.base import Decoding
from wise_edge.runtimes.session import Session

WINDOW_S = 1.5
IDLE_S = 2.0
WARM_UP = 3
PARTS = ("query", "policy_frame", "policy_write", "mask_encode", "mask_decode")
"""What energy is measured of: a query on a new picture, and alone the policy's work on the picture, its work on the
query, the segmenter's on the picture, and a mask."""


@dataclass(frozen=True)
class Spread:
    """Readings of one phase in ms, outliers included; `interval` is the mean's, 95 %."""

    p50: float
    p90: float
    p99: float
    mean: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Describe readings."""
        p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
        return cls(p50, p90, p99, float(np.mean(values)), bootstrap_interval(values))


@dataclass(frozen=True)
class PartEnergy:
    """What doing one thing once takes.

    Attributes:
        energy_j: of what the source measures (a Jetson's rails the board, NVML the GPU alone); None where it is not
            measurable.
        net_j: less what the device takes idle in that time.
        reason: why there is none.
        times: how often it was done in the window.
        window_s: how long that took.
        samples: readings in the window.
        error_share: what the energy may be wrong by, as a share of it.
    """

    energy_j: float | None
    net_j: float | None
    reason: str | None
    times: int = 0
    window_s: float = 0.0
    samples: int = 0
    error_share: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a variant costs on a pair of backends.

    Attributes:
        variant: the prompt variant.
        policy: the policy's backend.
        mask: the segmenter's.
        queries: how many were measured.
        warm_up: how many went before and do not count.
        latency_ms: phase to its readings; "other" is what lies between the phases, below 0 where some ran side by side.
        rationale_tokens: mean.
        decode_steps: mean.
        step_ms: decoding for each run of the language model.
        energy: for each of `PARTS`.
    """

    variant: str
    policy: str
    mask: str
    queries: int
    warm_up: int
    latency_ms: dict[str, Spread]
    rationale_tokens: float
    decode_steps: float
    step_ms: float | None
    energy: dict[str, PartEnergy]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


class Meter:
    """Measures what doing something takes.

    Args:
        source: what tells power; None for none.
        reason: why there is none.
        clock: seconds.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        source: PowerSource | None,
        reason: str = "",
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.source = source
        self.idle_w: float | None = None
        self._reason = reason
        self._clock = clock
        self._pause = pause
        self._sampler = None if source is None else PowerSampler(source, clock)

    @contextmanager
    def running(self) -> Iterator[Meter]:
        """Sample while the block runs; what the device takes idle is measured first."""
        if self._sampler is None:
            yield self
            return
        with self._sampler.running():
            self._pause(4 * self._sampler.pause_s)  # a counter's first move must lie before the window
            start = self._clock()
            self._pause(IDLE_S)
            end = self._clock()
            idle = self._energy(start, end)
            self.idle_w = None if idle.energy_j is None else idle.energy_j / (end - start)
            yield self

    def measure(self, work: Callable[[], object]) -> PartEnergy:
        """Do something until `WINDOW_S` is over, at least once, and return what once took."""
        if self._sampler is None:
            return PartEnergy(None, None, self._reason)
        times, start = 0, self._clock()
        while times == 0 or self._clock() - start < WINDOW_S:
            work()
            times += 1
        end = self._clock()
        energy = self._energy(start, end)
        if energy.energy_j is None:
            return PartEnergy(None, None, energy.reason, times, end - start, energy.samples, energy.error_share)
        net_j = None if self.idle_w is None else (energy.energy_j - self.idle_w * (end - start)) / times
        return PartEnergy(energy.energy_j / times, net_j, None, times, end - start, energy.samples, energy.error_share)

    def _energy(self, start_s: float, end_s: float) -> Energy:
        if self._sampler is None:
            raise RuntimeError("there is no source")
        self._pause(4 * self._sampler.pause_s)  # samples must reach beyond the window
        return self._sampler.trace().energy(start_s, end_s)


def profile_session(
    session: Session, examples: Sequence[Example], variant: str | None, repeat: int, meter: Meter
) -> Cost:
    """Measure what queries cost.

    Args:
        session: what is measured; the pictures are asked afresh.
        examples: pictures and queries.
        variant: prompt variant; None takes the bundle's default.
        repeat: how often each is asked.
        meter: of energy, running.

    Raises:
        UsageError: there is no example.
    """
    if not examples or repeat < 1:
        raise UsageError("a profile needs at least one picture, asked at least once")
    for number in range(WARM_UP):
        example = examples[number % len(examples)]
        session.afresh().segment(example.image, example.query, variant)
    results = [
        session.afresh().segment(example.image, example.query, variant) for _ in range(repeat) for example in examples
    ]
    phases: dict[str, list[float]] = {}
    for result in results:
        spent = asdict(result.latency_ms)
        spent["other"] = 2 * spent["total"] - sum(spent.values())
        for name, value in spent.items():
            phases.setdefault(name, []).append(value)
    steps = [result.tokens.decode_steps for result in results]
    return Cost(
        variant=results[0].variant,
        policy=session.policy.name,
        mask=session.mask.name,
        queries=len(results),
        warm_up=WARM_UP,
        latency_ms={name: Spread.of(values) for name, values in phases.items()},
        rationale_tokens=float(np.mean([result.tokens.rationale for result in results])),
        decode_steps=float(np.mean(steps)),
        step_ms=sum(phases["decode"]) / sum(steps) if sum(steps) else None,
        energy=_measure_parts(session, examples, variant, meter),
    )


def _measure_parts(
    session: Session, examples: Sequence[Example], variant: str | None, meter: Meter
) -> dict[str, PartEnergy]:
    policy, mask = session.policy, session.mask
    first = examples[0]
    shown = session.segment(first.image, first.query, variant)
    frame, mask_frame = policy.encode(first.image), mask.encode(first.image)
    height, width, _ = first.image.shape
    box, points = shown.box or (0, 0, width, height), shown.points or ((width // 2, height // 2),)
    turns = {name: 0 for name in PARTS}

    def next_of(part: str) -> Example:
        turns[part] += 1
        return examples[turns[part] % len(examples)]

    def query() -> None:
        example = next_of("query")
        session.afresh().segment(example.image, example.query, variant)

    work: dict[str, Callable[[], object]] = {
        "query": query,
        "policy_frame": lambda: policy.encode(next_of("policy_frame").image),
        "policy_write": lambda: policy.generate(frame, first.query, shown.variant, Decoding()),
        "mask_encode": lambda: mask.encode(next_of("mask_encode").image),
        "mask_decode": lambda: mask.decode(mask_frame, box, points),
    }
    return {part: meter.measure(work[part]) for part in PARTS}
