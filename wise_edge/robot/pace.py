"""What a recording would have been like live: which frames the policy would have seen, and how old its answers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Replay:
    """A camera at its recorded rate against a policy that takes as long as it took.

    Attributes:
        rate_hz: of the frames; None of fewer than two.
        grounded: places of the frames that the policy would have seen, each the newest when the last was answered.
        age_s: for each frame from the first answer on, how old the newest answer's frame was when the frame came.
        dropped: frames that the policy would not have seen.
    """

    rate_hz: float | None
    grounded: tuple[int, ...]
    age_s: tuple[float, ...]
    dropped: int

    def age_percentile_s(self, share: float) -> float | None:
        """Return a percentile of the ages; None without any."""
        return float(np.percentile(self.age_s, share)) if self.age_s else None


def replay(stamps_s: Sequence[float], took_s: Sequence[float]) -> Replay:
    """Simulate a queue of one in which the newest frame wins.

    Args:
        stamps_s: when each frame was taken, rising.
        took_s: how long the policy and the mask took for each.
    """
    grounded: list[int] = []
    answers: list[tuple[float, float]] = []  # when an answer came, and the stamp of its frame
    free_s, seen = -float("inf"), -1
    while seen + 1 < len(stamps_s):
        # The newest frame that is there when the policy is free, or the next that comes.
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
