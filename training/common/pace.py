"""How long a training still takes, by the steps that it has taken."""

from __future__ import annotations

import time
from collections.abc import Callable

from wise_edge.drawing.units import duration


class Pace:
    """The mean time of a step since this process took up the training, validations and checkpoints included.

    Args:
        step: steps done before.
        steps: all steps of the training.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, step: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._steps, self._clock = step, steps, clock
        self._start_s = clock()

    def left(self, step: int) -> str:
        """Return the time left after a step, as " (about 3 h 5 min left)"; empty if it is not known or none is left."""
        if not self._first < step < self._steps:
            return ""
        each_s = (self._clock() - self._start_s) / (step - self._first)
        return f" (about {duration(each_s * (self._steps - step))} left)"
