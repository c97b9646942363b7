"""Simulate a recording as if it were live: which frames the policy would have seen, and how old its answers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_APART_S, _APART_SHARE = 1.0, 0.1
"""How far stamps and times of recording may drift apart: in s, and as a share of the recording."""


@dataclass(frozen=True)
class Replay:
    """A camera at its recorded rate, with a policy that takes as long as was measured.

    Attributes:
        rate_hz: frame rate; None for fewer than two frames.
        grounded: places of the frames that the policy would have seen, each the newest when the previous was answered.
        age_s: for each frame from the first answer on, the age of the newest answer's frame when the frame arrived.
        dropped: readable frames that the policy would not have seen.
    """

    rate_hz: float | None
    grounded: tuple[int, ...]
    age_s: tuple[float, ...]
    dropped: int

    def age_percentile_s(self, share: float) -> float | None:
        """Return a percentile of the ages; None if there are none."""
        return float(np.percentile(self.age_s, share)) if self.age_s else None


def choose_times(stamps_ns: Sequence[int], recorded_ns: Sequence[int]) -> tuple[tuple[float, ...], str | None]:
    """Return when frames were taken: their stamps, or the recording's own times if the stamps cannot be right.

    Drivers set stamps to 0, mix units or take them from a clock that jumps. Right stamps ascend, and keep their
    distance to the times at which frames were recorded, which is up to some 100 ms later.

    Args:
        stamps_ns: stamp of each frame.
        recorded_ns: when each frame was recorded.

    Returns:
        Seconds from the first frame on, empty if neither can be right, and why they are not the stamps.
    """
    stamped_s, recorded_s = ([(time_ns - times[0]) / 1e9 for time_ns in times] for times in (stamps_ns, recorded_ns))
    known = len(recorded_s) < 2 or (_ascend(recorded_s) and recorded_s[-1] > 0)
    if not _ascend(stamped_s, strictly=True):
        wrong = "the images' stamps do not ascend"
    else:
        ahead_s = [stamp_s - time_s for stamp_s, time_s in zip(stamped_s, recorded_s, strict=True)]
        apart_s = max(ahead_s, default=0.0) - min(ahead_s, default=0.0)
        if not known or apart_s <= _APART_S + _APART_SHARE * recorded_s[-1]:
            return tuple(stamped_s), None
        wrong = f"the images' stamps and the times of the recording drift apart by {apart_s:.0f} s"
    if known:
        return tuple(recorded_s), f"{wrong}; these are the times of the recording"
    return (), f"{wrong}, and the times of the recording do not either"


def _ascend(times_s: Sequence[float], *, strictly: bool = False) -> bool:
    return all(later > earlier or (later == earlier and not strictly) for earlier, later in pairwise(times_s))


def replay(stamps_s: Sequence[float], took_s: Sequence[float | None]) -> Replay:
    """Simulate a queue of one frame in which the newest wins.

    Args:
        stamps_s: capture time of each frame, ascending.
        took_s: time that policy and mask took for each frame; None for a frame that could not be read.
    """
    frames = [(place, stamps_s[place], took) for place, took in enumerate(took_s) if took is not None]
    arrived_s = [stamp_s for _, stamp_s, _ in frames]
    grounded: list[int] = []
    answers: list[tuple[float, float]] = []  # when an answer came, and the stamp of its frame
    free_s, seen = -float("inf"), -1
    while seen + 1 < len(frames):
        # The newest frame when the policy becomes free, or else the next one.
        newest = int(np.searchsorted(arrived_s, free_s, "right")) - 1
        seen = max(newest, seen + 1)
        place, stamp_s, spent_s = frames[seen]
        free_s = max(free_s, stamp_s) + spent_s
        grounded.append(place)
        answers.append((free_s, stamp_s))
    came, of = (np.array(column) for column in zip(*answers, strict=True)) if answers else (np.empty(0), np.empty(0))
    ages = []
    for stamp_s in stamps_s:
        known = int(np.searchsorted(came, stamp_s, "right")) - 1
        if known >= 0:
            ages.append(float(stamp_s - of[known]))
    length_s = stamps_s[-1] - stamps_s[0] if len(stamps_s) > 1 else 0.0
    rate_hz = (len(stamps_s) - 1) / length_s if length_s > 0 else None
    return Replay(rate_hz, tuple(grounded), tuple(ages), len(frames) - len(grounded))
