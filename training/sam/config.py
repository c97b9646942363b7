"""Config of training a small segmenter from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from wise_edge.mapping import from_mapping
from wise_edge.ranges import Checked, Count, Index, Name, NotNegative, OneOf, Range, Share, shorten
from wise_edge.sam.mobile_sam import MobileSamArchitecture
from wise_edge.sam.segment_anything import SamArchitecture
from wise_edge.training.common.config import Batch, LoopConfig, OptimizerConfig, Rate
from wise_edge.training.sam.edgetam import EdgeTamArchitecture

Architecture = SamArchitecture | MobileSamArchitecture | EdgeTamArchitecture
ARCHITECTURES: dict[str, type[Architecture]] = {
    "segment_anything": SamArchitecture,
    "mobile_sam": MobileSamArchitecture,
    "edgetam": EdgeTamArchitecture,
}
"""The families of segmenters that are trained, and the class of their `model`."""

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
    """Training of a segmenter on synthetic scenes with every object of a scene as a prompt.

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
    family: Annotated[str, OneOf(ARCHITECTURES)] = "segment_anything"
    """The segmenter's family, which says what `model` holds."""
    model: Architecture = field(default_factory=SamArchitecture)
    start: Name | None = None
    """Checkpoint of a SAM whose prompt encoder and mask decoder the training starts from, or "embedded"."""
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
        if not isinstance(self.model, ARCHITECTURES[self.family]):
            raise ValueError(f"model: is not a {ARCHITECTURES[self.family].__name__}, the class of {self.family}")
        if self.decay_steps > self.steps:
            raise ValueError(f"decay_steps: must be from 0 to steps, which is {self.steps}")

    @classmethod
    def upgrade(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a recipe's mapping with its `model` as an object of the family's class."""
        family, model = mapping.get("family", "segment_anything"), mapping.get("model", {})
        if not isinstance(family, str) or family not in ARCHITECTURES:
            raise ValueError(f"family: choose one of {', '.join(ARCHITECTURES)}; it is {shorten(family)}")
        if isinstance(model, Mapping):
            model = from_mapping(ARCHITECTURES[family], model, "model.")
        return {**mapping, "model": model}

    @property
    def total_steps(self) -> int:
        """All steps."""
        return self.steps
