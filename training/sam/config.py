"""Config of training a small Segment Anything model from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from wise_edge.sam.segment_anything import SamArchitecture
from wise_edge.training.common.config import LoopConfig, OptimizerConfig


@dataclass(frozen=True)
class JitterConfig:
    """How far training prompts deviate from the true ones; shifts are uniform, in px of the image."""

    box_px: int = 6
    """Largest shift of a box edge, for most objects."""
    point_px: int = 3
    """Largest shift of a point, for most objects."""
    wide_box_px: int = 12
    """The same for the other objects, as from an uncertain policy."""
    wide_point_px: int = 8
    """The same for the other objects."""
    wide_share: float = 0.25
    """Share of objects with wide jitter."""
    box_only_share: float = 0.08
    """Share of steps without points."""
    points_only_share: float = 0.08
    """Share of steps without boxes."""


@dataclass(frozen=True, kw_only=True)
class SamConfig(OptimizerConfig, LoopConfig):
    """Training of SAM on synthetic scenes with every object of a scene as a prompt.

    In a recipe the keys of the optimizer and of the loop are at the top level. The learning rates are constant between
    the warm-up and the decay.
    """

    changeable: ClassVar[frozenset[str]] = LoopConfig.changeable | {
        "steps",
        "decay_steps",
        "validate_scenes",
        "final_scenes",
    }
    steps: int
    """Optimizer steps. A finished or interrupted run continues with more of them (`--resume --set steps=N`)."""
    decay_steps: int
    """Number of last steps over which the learning rates fall linearly to 0."""
    stage: str = "sam"
    """Selects this config in a recipe."""
    model: SamArchitecture = field(default_factory=SamArchitecture)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    scenes_per_step: int = 4
    """Scenes per step."""
    adamw_lr: float = 1.2e-3
    muon_lr: float = 3e-3
    weight_decay: float = 0.02
    checkpoint_every: int = 250
    validate_every: int = 500
    validate_scenes: int = 64
    """Scenes of the validation split in each validation."""
    final_scenes: int = 500
    """Scenes of the test split at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 <= self.decay_steps <= self.steps:
            raise ValueError("decay_steps: must be from 0 to steps, and steps at least 1")
        if self.scenes_per_step < 1:
            raise ValueError("scenes_per_step: must be at least 1")
