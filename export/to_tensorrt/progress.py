"""The progress of an engine's build, computed from the phases that TensorRT reports."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

BuildProgress = Callable[[float], None]
"""Called with the share of a build that is done, 0 to 1."""


class Phases:
    """Nested phases, each with a number of steps that count equally."""

    def __init__(self) -> None:
        self._phases: dict[str, list[Any]] = {}  # name: parent, steps, steps done

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase within a step of its parent."""
        self._phases[name] = [parent, max(steps, 1), 0]

    def step(self, name: str, step: int) -> None:
        """Count a step of a phase, from 0."""
        if name in self._phases:
            self._phases[name][2] = min(step + 1, self._phases[name][1])

    def finish(self, name: str) -> None:
        """End a phase."""
        self._phases.pop(name, None)

    def share(self) -> float:
        """Return the share of the build that is done, 0 to 1."""
        share = 0.0
        for name, (parent, _, _) in self._phases.items():
            if parent is None:
                share = max(share, self._share(name))
        return share

    def _share(self, name: str) -> float:
        _, steps, done = self._phases[name]
        within = max(
            (self._share(child) for child, (parent, _, _) in self._phases.items() if parent == name), default=0
        )
        return float(min(1.0, (done + within) / steps))


def make_monitor(trt: ModuleType, progress: BuildProgress) -> Any:
    """Return a progress monitor whose `interrupted` reports Ctrl-C; None if the version has no such interface.

    Reported shares never decrease, although phases overlap.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._phases = Phases()
            self._highest = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases.start(name, parent, steps)

        def phase_finish(self, name: str) -> None:
            self._phases.finish(name)

        def step_complete(self, name: str, step: int) -> bool:
            # Exceptions must not cross the builder: returning False stops it, and the caller raises.
            try:
                self._phases.step(name, step)
                self._highest = max(self._highest, self._phases.share())
                progress(self._highest)
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

    return Monitor()
