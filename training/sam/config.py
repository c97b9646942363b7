"""Config of training a small Segment Anything model from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field

from wise_edge.sam.segment_anything import SamArchitecture


@dataclass(frozen=True)
class JitterConfig:
    """How far training prompts stray from the true ones. Distances are px of the image, uniform in each edge."""

    box_px: int = 6
    """Largest shift of a box's edge, for most objects."""
    point_px: int = 3
    """Largest shift of a point, for most objects."""
    wide_box_px: int = 12
    """The same for the other objects: what an uncertain policy gives."""
    wide_point_px: int = 8
    """The same for the other objects."""
    wide_share: float = 0.25
    """Share of objects with wide jitter."""
    box_only_share: float = 0.08
    """Share of steps in which the points are left out."""
    points_only_share: float = 0.08
    """Share of steps in which the box is left out."""


@dataclass(frozen=True)
class SamConfig:
    """Training of SAM on synthetic scenes, every object of a scene a prompt."""

    steps: int
    """Optimizer steps. A finished or cut run goes on with more of them (`--resume --set steps=N`)."""
    decay_steps: int
    """The last steps, in which the learning rates fall linearly to 0; constant before."""
    stage: str = "sam"
    """Chooses this config in a recipe."""
    model: SamArchitecture = field(default_factory=SamArchitecture)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    seed: int = 0
    """Seed of weights and jitter."""
    scenes_per_step: int = 4
    """Scenes a step."""
    adamw_lr: float = 1.2e-3
    """Learning rate of AdamW, which moves everything else."""
    muon_lr: float = 3e-3
    """Learning rate of Muon, which moves the matrices (update of root mean square `lr x 0.2`)."""
    momentum: float = 0.95
    """Muon's Nesterov momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = 0.02
    """Decoupled decay of the matrices."""
    warmup_steps: int = 100
    """Steps of linear warm-up at the start."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    threads: int = 1
    """Torch threads."""
    log_every: int = 50
    """Steps between lines of the log; each holds means since the last."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations."""
    validate_scenes: int = 64
    """Validation scenes each time."""
    final_scenes: int = 500
    """Test scenes at the end."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.decay_steps <= self.steps:
            raise ValueError("decay_steps: must lie between 0 and steps, which is at least 1")
        if self.scenes_per_step < 1:
            raise ValueError("scenes_per_step: must be at least 1")
