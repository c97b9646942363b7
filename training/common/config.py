"""Config that trainings from scratch share; each stage's own config inherits or holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Muon for hidden matrices, AdamW for everything else: embeddings, norms, biases, heads that are thrown away."""

    muon_lr: float = 2e-3
    """Peak learning rate of the matrices (the root mean square of an update is 0.2 of it)."""
    adamw_lr: float = 2e-3
    """Peak learning rate of everything else."""
    momentum: float = 0.95
    """Muon's Nesterov momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = 0.01
    """Decoupled decay of the matrices."""
    clip_norm: float = 1.0
    """Largest norm of the complete gradient."""
    warmup_steps: int = 100
    """Steps of linear warm-up at the start."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How often the loop logs, saves and validates."""

    changeable: ClassVar[frozenset[str]] = frozenset({"threads", "log_every", "checkpoint_every", "validate_every"})
    """Dotted keys that a resumed run may change: those that change no step, and those that end a run later."""
    seed: int = 0
    """Seed of the weights and of everything that is drawn."""
    threads: int = 1
    """Torch threads."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16 if the CPU is faster at it; weights, sums and losses stay float32. A run keeps the
    type that it began with."""
    log_every: int = 50
    """Steps between lines of the log; each holds means since the last one."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 1000
    """Steps between validations."""

    def __post_init__(self) -> None:
        for name in ("threads", "log_every", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
