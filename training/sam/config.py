"""Config of training a small Segment Anything model from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from wise_edge.ranges import Checked, Count, Index, NotNegative, OneOf, Range, Share
from wise_edge.sam.segment_anything import SamArchitecture
from wise_edge.training.common.config import Batch, LoopConfig, OptimizerConfig, Rate

_Pixels = Annotated[int, Range(0, 4096)]


@dataclass(frozen=True)
class JitterConfig(Checked):
    """How far training prompts deviate from the true ones; shifts are uniform, in px of the image."""

    box_px: _Pixels = 6
    """Largest shift of a box edge, for most objects."""
    point_px: _Pixels = 3
    """Largest shift of a point, for most objects."""
    wide_box_px: _Pixels = 12
    """The same for the other objects, as from an uncertain policy."""
    wide_point_px: _Pixels = 8
    """The same for the other objects."""
    wide_share: Share = 0.25
    """Share of objects with wide jitter."""
    box_only_share: Share = 0.08
    """Share of steps without points."""
    points_only_share: Share = 0.08
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
    steps: Count
    """Optimizer steps. A finished or interrupted run continues with more of them (`--resume --set steps=N`)."""
    decay_steps: Index
    """Number of last steps over which the learning rates fall linearly to 0."""
    stage: Annotated[str, OneOf(("sam",))] = "sam"
    """Selects this config in a recipe."""
    model: SamArchitecture = field(default_factory=SamArchitecture)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    scenes_per_step: Batch = 4
    """Scenes per step."""
    adamw_lr: Rate = 1.2e-3
    muon_lr: Rate = 3e-3
    weight_decay: NotNegative = 0.02
    checkpoint_every: Count = 250
    validate_every: Count = 500
    validate_scenes: Count = 64
    """Scenes of the validation split in each validation."""
    final_scenes: Count = 500
    """Scenes of the test split at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_steps > self.steps:
            raise ValueError(f"decay_steps: must be from 0 to steps, which is {self.steps}")

    @property
    def total_steps(self) -> int:
        """All steps."""
        return self.steps
