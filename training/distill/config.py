"""Config of the distillation of a segmenter's image encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from wise_edge.ranges import Checked, Count, Depth, Index, Name, NotNegative, OneOf, Positive, Range, Side, Width
from wise_edge.training.common.config import Batch, LoopConfig, OptimizerConfig, Rate

SCENES = "scenes"
"""Names drawn scenes instead of a folder of pictures."""


@dataclass(frozen=True)
class EncoderConfig(Checked):
    """Widths of the student's TinyViT; the defaults are MobileSAM's. Sizes and the decoder are the teacher's."""

    encoder_dims: tuple[Width, Width, Width, Width] = (64, 128, 160, 320)
    """Widths of the stages: convolutions at a quarter of the input's size, then three of attention."""
    encoder_depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 6, 2)
    """Blocks of each stage."""
    encoder_heads: tuple[Depth, Depth, Depth, Depth] = (2, 4, 5, 10)
    """Attention heads of each stage; the first has no attention."""
    window_sizes: tuple[Side, Side, Side, Side] = (7, 7, 14, 7)
    """Side of an attention window in each stage, positions."""
    conv_expansion: Positive = 4.0
    """Hidden channels of the first stage's blocks, as a multiple of their width."""
    mlp_ratio: Positive = 4.0
    """Feed-forward width, as a multiple of a stage's width."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig(OptimizerConfig, LoopConfig):
    """Distillation of a segmenter with SAM's mask decoder into a MobileSAM with the same decoder.

    First the student's image embeddings are fitted to the teacher's. In the last `mask_steps` also the masks are, which
    the decoder makes of both for points and boxes without labels. The learning rates are constant between the warm-up
    and the decay.
    """

    changeable: ClassVar[frozenset[str]] = LoopConfig.changeable | {"device", "cache_gb"}
    steps: Count
    """Optimizer steps."""
    mask_steps: Index = 0
    """Number of last steps with masks in the loss."""
    decay_steps: Index
    """Number of last steps over which the learning rates fall linearly to 0."""
    stage: Annotated[str, OneOf(("distill",))] = "distill"
    """Selects this config in a recipe."""
    teacher: Name = "embedded"
    """Checkpoint of a SAM, MobileSAM or EfficientViT-SAM, or "embedded"."""
    images: Name = SCENES
    """Folder of pictures of any size, or "scenes" for drawn ones."""
    model: EncoderConfig = field(default_factory=EncoderConfig)
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))] = "auto"
    """Where to train; "auto" takes a GPU if torch has one."""
    pictures_per_step: Batch = 8
    """Pictures of a step."""
    prompts_per_picture: Annotated[int, Range(1, 256)] = 3
    """Points of a picture, of which masks are made."""
    cache_gb: NotNegative = 10.0
    """Most space in the folder of the run for the teacher's embeddings, which else are computed in each epoch."""
    adamw_lr: Rate = 1.2e-3
    muon_lr: Rate = 3e-3
    weight_decay: NotNegative = 0.02
    validate_pictures: Count = 64
    """Pictures that are held out to compare the student with the teacher; at most a tenth of a folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("decay_steps", "mask_steps"):
            if getattr(self, name) > self.steps:
                raise ValueError(f"{name}: must be from 0 to steps, which is {self.steps}")

    @property
    def total_steps(self) -> int:
        """All steps."""
        return self.steps
