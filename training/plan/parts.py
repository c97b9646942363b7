"""The parts that a training's memory is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Phase = Literal["always", "vision", "writing", "backward"]
"""When memory is taken: during the whole run, while pictures are encoded, while completions are written, or in the
backward pass."""


@dataclass(frozen=True)
class MemoryPart:
    """A part of the memory that each process takes.

    Attributes:
        name: what it holds.
        sum: how its size is computed, for people.
        size_bytes: its size; None if it is not computed.
        phase: when it is taken.
        reason: why there is no size.
    """

    name: str
    sum: str
    size_bytes: float | None
    phase: Phase = "always"
    reason: str | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do and need.

    Attributes:
        facts: what it trains, on what and how long, each with its name.
        memory: of each process.
        disk_bytes: what the folder of the run takes at most: checkpoints, the best policy and the model.
        model: folder of the trained model.
        notes: what the arithmetic leaves out.
    """

    facts: tuple[tuple[str, str], ...]
    memory: tuple[MemoryPart, ...]
    disk_bytes: float
    model: str
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> float:
        """The most memory that a process takes at a time: what it always has, and the largest of the phases."""
        total = {phase: self._total(phase) for phase in get_args(Phase)}
        return total.pop("always") + max(total.values())

    def _total(self, phase: str) -> float:
        return sum(part.size_bytes or 0.0 for part in self.memory if part.phase == phase)
