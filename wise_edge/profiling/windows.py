"""Windows of repeated work, and the energy that one repetition takes according to a trace of power readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerTrace

ACCEPTED_ERROR = 0.05
"""Share by which a reported energy may be wrong. Windows are extended to reach the stricter
`wise_edge.power.trace.STRICT_ERROR`; what stays between the two is reported with its error."""


@dataclass(frozen=True)
class Window:
    """A stretch of time in which one thing was done repeatedly.

    Attributes:
        start_s: by the meter's clock.
        end_s: likewise.
        times: how often it was done.
    """

    start_s: float
    end_s: float
    times: int

    @property
    def length_s(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class PartEnergy:
    """The energy of doing one thing once, according to one source.

    Attributes:
        energy_j: of what the source measures (rails: the whole board; NVML: the GPU only); None if it cannot be
            measured.
        net_j: the same minus what the device takes when idle for as long.
        reason: why there is no energy.
        times: how often it was done in the window.
        window_s: length of the window.
        samples: readings in the window.
        largest_gap_s: longest time between two of them.
        error_share: uncertainty of the energy, as a share of it.
    """

    energy_j: float | None
    net_j: float | None
    reason: str | None
    times: int
    window_s: float
    samples: int
    largest_gap_s: float
    error_share: float | None

    @classmethod
    def missing(cls, reason: str) -> PartEnergy:
        """Return the energy of something that has no window, with the reason."""
        return cls(None, None, reason, 0, 0.0, 0, 0.0, None)

    @classmethod
    def of(cls, trace: PowerTrace, window: Window, idle: Sequence[Window]) -> PartEnergy:
        """Divide the energy of a window by its repetitions.

        Args:
            trace: the readings of a source.
            window: what was repeated.
            idle: windows in which the device was idle.
        """
        found = trace.energy(window.start_s, window.end_s, ACCEPTED_ERROR)
        known = [watts for watts in (idle_power_w(trace, each) for each in idle) if watts is not None]
        each_j = None if found.energy_j is None else found.energy_j / window.times
        idle_j = sum(known) / len(known) * window.length_s / window.times if known else None
        net_j = None if each_j is None or idle_j is None else each_j - idle_j
        return cls(
            each_j,
            net_j,
            found.reason,
            window.times,
            window.length_s,
            found.samples,
            found.largest_gap_s,
            found.error_share,
        )


@dataclass(frozen=True)
class SourceFacts:
    """How a source was read over a complete run.

    Attributes:
        name: of the source.
        kind: "power" or "energy": what it reports.
        parts: what it measures.
        total: the parts that add up to the total.
        interval_s: how often its readings change; None if that is unknown.
        resolution: smallest step between two readings of the total, W or J; None if it never moved.
        readings: how many were kept.
        dropped: how many were implausible.
        largest_gap_s: longest time between two readings in a window; None without a window.
        idle_before_w: idle power before the work; None if it cannot be measured.
        idle_after_w: likewise after the work.
        lost: why it could not be read to the end; None if it could.
    """

    name: str
    kind: str
    parts: tuple[str, ...]
    total: tuple[str, ...]
    interval_s: float | None
    resolution: float | None
    readings: int
    dropped: int
    largest_gap_s: float | None
    idle_before_w: float | None
    idle_after_w: float | None
    lost: str | None

    @classmethod
    def of(cls, trace: PowerTrace, windows: Sequence[Window], idle: Sequence[Window]) -> SourceFacts:
        """Summarize a trace over the windows of a run; `idle` holds those before and after the work."""
        source = trace.source
        gaps_s = [trace.energy(window.start_s, window.end_s).largest_gap_s for window in windows]
        before_w, after_w = [*(idle_power_w(trace, window) for window in idle), None, None][:2]
        return cls(
            source.name,
            source.kind,
            source.parts,
            tuple(source.parts[place] for place in source.total),
            source.interval_s,
            trace.resolution(),
            len(trace.times_s),
            trace.dropped,
            max(gaps_s, default=None),
            before_w,
            after_w,
            trace.lost,
        )


def idle_power_w(trace: PowerTrace, window: Window) -> float | None:
    """Return the mean power in a window, in W; None if it cannot be measured."""
    energy = trace.energy(window.start_s, window.end_s, ACCEPTED_ERROR)
    return None if energy.energy_j is None else energy.energy_j / window.length_s


def explain_scope(source: PowerSource, on_gpu: bool | None, *, first: bool) -> str | None:
    """Return why a source does not cover some work; None if it does.

    Sources are chosen for the first backend of a profile; another backend may work elsewhere.

    Args:
        source: what was read.
        on_gpu: whether the work runs on a GPU; None if that does not matter.
        first: whether it is the source that counts; after it, the processor's share is reported for any work.
    """
    if source.scope == "gpu" and on_gpu is False:
        return "this runs on the processor and the source measures only the GPU; profile it separately"
    if source.scope == "processor" and on_gpu and first:
        return "this runs on a GPU and the source measures only the processor; profile it separately"
    return None
