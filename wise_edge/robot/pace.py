"""Simulate a recording as if it were live: which frames the policy would have seen, and how old its answers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Replay:
    """A camera at its recorded rate, with a policy that takes as long as was measured.

    Attributes:
        rate_hz: frame rate; None for fewer than two frames.
        grounded: places of the frames that the policy would have seen, each the newest when the previous was answered.
        age_s: for each frame from the first answer on, the age of the newest answer's frame when the frame arrived.
        dropped: frames that the policy would not have seen.
    """

    rate_hz: float | None
    grounded: tuple[int, ...]
    age_s: tuple[float, ...]
    dropped: int

    def age_percentile_s(self, share: float) -> float | None:
        """Return a percentile of the ages; None if there are none."""
        return float(np.percentile(self.age_s, share)) if self.age_s else None


def replay(stamps_s: Sequence[float], took_s: Sequence[float]) -> Replay:
    """Simulate a queue of one frame in which the newest wins.

    Args:
        stamps_s: capture time of each frame, ascending.
        took_s: time that policy and mask took for each frame.
    """
    grounded: list[int] = []
    answers: list[tuple[float, float]] = []  # when an answer came, and the stamp of its frame
    free_s, seen = -float("inf"), -1
    while seen + 1 < len(stamps_s):
        # The newest frame when the policy becomes free, or else the next one.
        newest = int(np.searchsorted(stamps_s, free_s, "right")) - 1
        place = max(newest, seen + 1)
        free_s = max(free_s, stamps_s[place]) + took_s[place]
        grounded.append(place)
        answers.append((free_s, stamps_s[place]))
        seen = place
    came, of = (np.array(column) for column in zip(*answers, strict=True)) if answers else (np.empty(0), np.empty(0))
    ages = []
    for stamp_s in stamps_s:
        known = int(np.searchsorted(came, stamp_s, "right")) - 1
        if known >= 0:
            ages.append(float(stamp_s - of[known]))
    length_s = stamps_s[-1] - stamps_s[0] if len(stamps_s) > 1 else 0.0
    rate_hz = (len(stamps_s) - 1) / length_s if length_s > 0 else None
    return Replay(rate_hz, tuple(grounded), tuple(ages), len(stamps_s) - len(grounded))
