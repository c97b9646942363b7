"""Config of supervised training of a small Qwen2.5-VL policy from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from wise_edge.policy.prompts import VARIANTS
from wise_edge.ranges import (
    Checked,
    Count,
    Depth,
    Index,
    Name,
    NotNegative,
    OneOf,
    Positive,
    Range,
    Share,
    Side,
    Width,
    label,
)
from wise_edge.scenes import KINDS, LEVEL_WEIGHTS, LEVELS
from wise_edge.training.common.config import Batch, Decay, LoopConfig, OptimizerConfig

LIST = "list"
"""Mixture key of the "list all objects" task; the other keys are prompt variants."""


@dataclass(frozen=True)
class PolicyModelConfig(Checked):
    """Widths of the policy. The defaults are the embedded policy's."""

    image_size: Side = 112
    """Side of the square image, px; must equal the vision window, so that every image is one window."""
    hidden_size: Width = 192
    """Text width."""
    num_layers: Depth = 5
    """Text layers."""
    num_heads: Depth = 6
    """Text attention heads, 32 wide each."""
    num_kv_heads: Depth = 2
    """Text key/value heads."""
    intermediate_size: Width = 384
    """Text feed-forward width."""
    rope_theta: Positive = 30.0
    """Base of the rotary frequencies. With Qwen's 1e6 no frequency distinguishes the cells of a 4 x 4 grid."""
    mrope_section: tuple[Depth, Depth, Depth] = (2, 4, 10)
    """Rotary frequencies for time, height and width; together half the width of a head."""
    init_std: NotNegative = 0.04
    """Standard deviation of the initial text weights."""
    vision_hidden_size: Width = 128
    """Vision width."""
    vision_depth: Depth = 4
    """Vision layers."""
    vision_heads: Depth = 4
    """Vision attention heads."""
    vision_intermediate_size: Width = 256
    """Vision feed-forward width."""
    vision_fullatt: tuple[Index, ...] = (1, 3)
    """Vision layers with full attention; periodic, as llama.cpp requires."""
    vision_init_std: NotNegative = 0.05
    """Standard deviation of the initial vision weights."""
    max_positions: Annotated[int, Range(1, 10**7)] = 1024
    """Longest prompt plus response, tokens."""


@dataclass(frozen=True, kw_only=True)
class CosineOptimizerConfig(OptimizerConfig):
    """Learning rates that fall along a cosine after the warm-up."""

    final_lr_share: Share = 0.02
    """Share of the peak that the cosine ends at."""


@dataclass(frozen=True)
class PhaseConfig(Checked):
    """One phase of training: its length and its data."""

    name: Name
    """Shown in logs."""
    steps: Count
    """Optimizer steps."""
    mixture: dict[str, NotNegative] = field(default_factory=dict)
    """Weight of each text task: "list" and the prompt variants. Empty: only the dense heads, no text."""
    dense_weight: NotNegative = 0.0
    """Weight of the dense heads' loss at the end of the phase, reached linearly from the previous phase's weight."""
    blend_steps: Index = 0
    """Steps over which the previous phase's mixture changes linearly to this one's."""
    level_weights: dict[str, tuple[NotNegative, ...]] = field(default_factory=dict)
    """Prompt variant -> how often each of `scenes.LEVELS` is drawn for its rationale; default: `LEVEL_WEIGHTS`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [key for key in self.mixture if key not in (LIST, *VARIANTS)]:
            raise ValueError(f"mixture.{label(unknown[0])}: keys are {LIST}, {', '.join(VARIANTS)}")
        if self.mixture and not any(self.mixture.values()):
            raise ValueError("mixture: at least one weight must be above 0")
        for variant, weights in self.level_weights.items():
            if variant not in LEVEL_WEIGHTS or len(weights) != len(LEVELS) or not any(weights):
                raise ValueError(
                    f"level_weights.{label(variant)}: keys are {', '.join(LEVEL_WEIGHTS)}; each has a weight for"
                    f" each of {', '.join(LEVELS)}, and at least one above 0"
                )
        object.__setattr__(self, "level_weights", {**LEVEL_WEIGHTS, **self.level_weights})


@dataclass(frozen=True, kw_only=True)
class SftConfig(LoopConfig):
    """Supervised training of the policy on synthetic scenes."""

    changeable: ClassVar[frozenset[str]] = LoopConfig.changeable | {
        "validate_samples",
        "final_samples",
        "validate_variants",
        "max_new_tokens",
    }
    phases: Annotated[tuple[PhaseConfig, ...], Range(1, 1000)]
    """Phases in order."""
    stage: Annotated[str, OneOf(("sft",))] = "sft"
    """Selects this config in a recipe."""
    start: Name | None = None
    """Policy to start from, with the widths in `model`: a folder or the name of a shipped one. None: fresh weights."""
    model: PolicyModelConfig = PolicyModelConfig()
    optimizer: CosineOptimizerConfig = CosineOptimizerConfig()
    batch_size: Batch = 32
    """Scenes per step."""
    pool_batches: Batch = 8
    """Batches that are drawn together and sorted by length, which keeps padding short."""
    first_scene: Index = 0
    """Scenes before this one are left out; a round has one scene of each kind."""
    kind_weights: dict[str, NotNegative] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    """Relative frequency of each kind of query."""
    digit_weight: NotNegative = 2.0
    """Weight of a digit's loss relative to other tokens."""
    choice_weight: NotNegative = 4.0
    """Weight of the tokens that name the right object, place first: they are few and the hardest to learn."""
    vocab_size: Annotated[int, Range(1, 10**6)] = 650
    """Upper bound of the tokenizer's size, special tokens included."""
    tokenizer_samples: Annotated[int, Range(1, 10**7)] = 20000
    """Number of texts that the tokenizer is trained on."""
    ema_decay: Decay = 0.998
    """Decay of the averaged weights, which are validated and saved."""
    validate_samples: Count = 64
    """Scenes in each validation."""
    final_samples: Count = 200
    """Scenes in the validation at the end."""
    validate_variants: tuple[Annotated[str, OneOf(VARIANTS)], ...] = ("verbose", "answer")
    """Prompt variants that are decoded in validation."""
    max_new_tokens: Annotated[int, Range(1, 10**5)] = 320
    """Longest decoded response in validation, tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.kind_weights) != set(KINDS) or not any(self.kind_weights.values()):
            raise ValueError(f"kind_weights: keys are {', '.join(KINDS)}; at least one weight must be above 0")

    @property
    def total_steps(self) -> int:
        """Total steps of all phases."""
        return sum(phase.steps for phase in self.phases)
