"""The readings of a power source over time, and the energy of windows of time.

Power is interpolated linearly between two samples. The error of that is bounded: a sudden step may occur anywhere
between its samples, so each pair of samples is uncertain by half their difference times their distance. The errors of
many steps grow with the square root of their number, as long as samples do not keep time with the load, which is why
the sampler varies its pauses. A counter of energy is uncertain only at the edges of a window. An energy is reported if
three standard deviations of its error are within a bound; otherwise it is not measurable. It is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wise_edge.power.sources import PowerSource

STRICT_ERROR = 0.02
"""Share by which a window's energy may be wrong, unless the caller accepts more."""
MIN_SAMPLES = 5
"""Fewest readings in a window whose energy is reported."""
Floats = npt.NDArray[np.float64]
_SIGMAS = 3.0
_GAP = 4.0  # samples further apart than this many times their median distance enclose a gap
_BRIEF = 3  # a load is brief if it lasts fewer samples


@dataclass(frozen=True)
class Energy:
    """The energy of a window of time.

    Attributes:
        energy_j: the device's total; None if it is not measurable.
        reason: why it is not measurable; None if it is.
        samples: number of readings in the window.
        largest_gap_s: longest time between two of them, or between one and the window's edge.
        error_share: share by which the total may be wrong; None without a total.
    """

    energy_j: float | None
    reason: str | None
    samples: int
    largest_gap_s: float
    error_share: float | None


class PowerTrace:
    """Readings of a source over time.

    Args:
        source: the source of the readings.
        times_s: float64 [N], rising.
        values: float64 [N, parts], as returned by `source.read`.
        dropped: number of invalid readings that were left out: not finite, or negative.
        lost: why the source could not be read at the end; None if it could.
    """

    def __init__(
        self,
        source: PowerSource,
        times_s: Floats,
        values: Floats,
        dropped: int = 0,
        lost: str | None = None,
    ) -> None:
        self.source = source
        self.dropped = dropped
        self.lost = lost
        values, wraps_j = values[:, list(source.total)], [source.wrap_j[part] for part in source.total]
        self.times_s, kept = (times_s, values) if source.kind == "power" else _moves(wraps_j, times_s, values)
        self._total: Floats = kept.sum(axis=1)  # W, or J since the first reading
        self._brief_w, self._brief_hz = (0.0, 0.0)
        if source.kind == "power" and len(times_s) > _BRIEF:
            self._brief_w, self._brief_hz = _brief_loads(times_s, self._total)
        self._resets_s = np.empty(0) if source.kind == "power" else _find_resets(wraps_j, times_s, values)
        self._late_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0

    def energy(self, start_s: float, end_s: float, max_error: float = STRICT_ERROR) -> Energy:
        """Return the energy of a window of time.

        Args:
            start_s: start of the window by the clock of the readings.
            end_s: its end by the same clock.
            max_error: share by which a reported energy may be wrong.
        """
        inside = self.times_s[(self.times_s >= start_s) & (self.times_s <= end_s)]
        gap_s = float(np.diff([start_s, *inside, end_s]).max())
        if (refused := self._refuse(start_s, end_s, len(inside))) is not None:
            return Energy(None, refused, len(inside), gap_s, None)
        measure = self._integrate if self.source.kind == "power" else self._subtract
        total_j, error_j = measure(start_s, end_s)
        if not total_j > 0:
            return Energy(None, "the source reads no power", len(inside), gap_s, None)
        share = error_j / total_j
        if share > max_error:
            why = f"uncertain by {share:.0%} at this sampling rate, which is more than {max_error:.0%}"
            return Energy(None, why, len(inside), gap_s, share)
        return Energy(total_j, None, len(inside), gap_s, share)

    def power(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Return times in s and the total power in W at these times, to plot a window; empty without a total.

        For a counter, a value is the mean power between two of its moves, and its time the middle between them.
        """
        around = self._around(start_s, end_s)
        times_s, total = self.times_s[around], self._total[around]
        if not self.source.total:
            return np.empty(0), np.empty(0)
        if self.source.kind == "energy":
            return (times_s[1:] + times_s[:-1]) / 2, np.diff(total) / np.diff(times_s)
        return times_s, total

    def resolution(self) -> float | None:
        """Return the smallest step between two readings of the total, in W or J; None if the total never changed."""
        steps = np.abs(np.diff(self._total))
        return float(steps[steps > 0].min()) if (steps > 0).any() else None

    def _refuse(self, start_s: float, end_s: float, samples: int) -> str | None:
        if self.source.reason is not None:
            return self.source.reason
        if not len(self.times_s) or start_s < self.times_s[0] or end_s > self.times_s[-1]:
            return self.lost or "the window extends beyond the readings"
        if ((self._resets_s > start_s) & (self._resets_s <= end_s)).any():
            return "the counter was reset in the window, which happens when its driver is reloaded"
        if samples < MIN_SAMPLES:
            return f"{samples} readings in {(end_s - start_s) * 1e3:.0f} ms; at least {MIN_SAMPLES} are needed"
        return None

    def _around(self, start_s: float, end_s: float) -> slice:
        """Return the samples of a window, with the one before it and the one after it."""
        first = int(np.searchsorted(self.times_s, start_s, "right")) - 1
        return slice(max(first, 0), int(np.searchsorted(self.times_s, end_s, "left")) + 1)

    def _integrate(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return energy and its uncertainty in J from samples of power."""
        around = self._around(start_s, end_s)
        times_s, total_w = self.times_s[around], self._total[around]
        at_s = np.concatenate([[start_s], times_s[1:-1], [end_s]])
        at_w = np.interp(at_s, times_s, total_w)
        energy_j = float(((at_w[1:] + at_w[:-1]) / 2 * np.diff(at_s)).sum())
        distances_s, steps_w = np.diff(times_s), np.abs(np.diff(total_w))
        # In a gap, anything that happened elsewhere may have happened too.
        is_gap = distances_s > _GAP * np.median(distances_s)
        steps_w = np.where(is_gap, np.maximum(steps_w, 2 * np.ptp(total_w)), steps_w)
        # A sensor that averages or lags by its interval blurs a step as far as a slow sampler does.
        blurred_s = np.maximum(distances_s, self.source.interval_s or 0.0)
        variance = ((steps_w * blurred_s) ** 2).sum()
        # If loads of a few samples were seen anywhere, some may have been missed here.
        missed = max(1.0, self._brief_hz * (end_s - start_s))
        variance += missed * (self._brief_w * np.median(blurred_s)) ** 2
        return energy_j, _SIGMAS * math.sqrt(float(variance) / 12)

    def _subtract(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return energy and its uncertainty in J from a counter, whose value between two moves is not known."""
        low_j, high_j = np.interp((start_s, end_s), self.times_s, self._total).tolist()
        variance = 0.0
        for edge_s in (start_s, end_s):
            place = int(np.clip(np.searchsorted(self.times_s, edge_s), 1, len(self.times_s) - 1))
            near = slice(max(place - 2, 0), place + 2)
            spans_s = np.diff(self.times_s[near])
            power_w = np.diff(self._total[near]) / spans_s
            # A move is seen late, by up to a pause, and power within its span may be that of its neighbors.
            variance += (power_w.max() * self._late_s) ** 2 + (np.ptp(power_w) * spans_s.max()) ** 2
        return high_j - low_j, _SIGMAS * math.sqrt(float(variance) / 12)


def _brief_loads(times_s: Floats, total_w: Floats) -> tuple[float, float]:
    """Return the greatest height of peaks and dips narrower than `_BRIEF` samples in W, and their rate per second.

    Heights below a tenth of the mean count as noise. Gaps do not count as sampled time.
    """
    padded = np.pad(total_w, _BRIEF - 1, mode="edge")
    floor = sliding_window_view(sliding_window_view(padded, _BRIEF).min(axis=1), _BRIEF).max(axis=1)
    ceiling = sliding_window_view(sliding_window_view(padded, _BRIEF).max(axis=1), _BRIEF).min(axis=1)
    heights_w = np.maximum(total_w - floor, ceiling - total_w)
    brief = heights_w > 0.1 * total_w.mean()
    if not brief.any():
        return 0.0, 0.0
    distances_s = np.diff(times_s)
    sampled_s = distances_s[distances_s <= _GAP * np.median(distances_s)].sum()  # a resting sampler sees none
    return float(heights_w.max()), float(brief.sum() / sampled_s)


def _find_resets(wraps_j: Sequence[float | None], times_s: Floats, values: Floats) -> Floats:
    """Return the times in s at which a counter that never wraps had fallen."""
    lasting = [part for part, wrap_j in enumerate(wraps_j) if wrap_j is None]
    fell: Floats = times_s[1:][(np.diff(values[:, lasting], axis=0) < 0).any(axis=1)]
    return fell


def _moves(wraps_j: Sequence[float | None], times_s: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the times in s at which a counter had moved, and its values in J since the first, wraps undone."""
    steps_j = np.diff(values, axis=0)
    for part, wrap_j in enumerate(wraps_j):
        if wrap_j is not None:
            steps_j[:, part] += wrap_j * (steps_j[:, part] < 0)
    moved = np.flatnonzero(steps_j.any(axis=1)) + 1
    return times_s[moved], np.cumsum(steps_j, axis=0)[moved - 1]
