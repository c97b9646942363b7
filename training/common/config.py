"""Config that trainings from scratch share; each stage's own config inherits or holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wise_edge.ranges import Checked, Count, Index, NotNegative, Positive, Range

Rate = Annotated[float, Range(0, 10)]
Decay = Annotated[float, Range(0, 0.999_999_9)]
Batch = Annotated[int, Range(1, 65_536)]
Threads = Annotated[int, Range(1, 1024)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What numpy and torch take as a seed."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Checked):
    """Muon for hidden matrices, AdamW for everything else: embeddings, norms, biases, heads that are thrown away."""

    muon_lr: Rate = 2e-3
    """Peak learning rate of the matrices (the root mean square of an update is 0.2 of it)."""
    adamw_lr: Rate = 2e-3
    """Peak learning rate of everything else."""
    momentum: Decay = 0.95
    """Muon's Nesterov momentum."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: NotNegative = 0.01
    """Decoupled decay of the matrices."""
    clip_norm: Positive = 1.0
    """Largest norm of the complete gradient."""
    warmup_steps: Index = 100
    """Steps of linear warm-up at the start."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Checked):
    """How often the loop logs, saves and validates."""

    changeable: ClassVar[frozenset[str]] = frozenset({"threads", "log_every", "checkpoint_every", "validate_every"})
    """Dotted keys that a resumed run may change: those that change no step, and those that end a run later."""
    seed: Seed = 0
    """Seed of the weights and of everything that is drawn."""
    threads: Threads = 1
    """Torch threads."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16 if the CPU is faster at it; weights, sums and losses stay float32. A run keeps the
    type that it began with."""
    log_every: Count = 50
    """Steps between lines of the log; each holds means since the last one."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    validate_every: Count = 1000
    """Steps between validations."""
