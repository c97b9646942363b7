"""Config of supervised training of a small Qwen2.5-VL policy from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field

from wise_edge.policy.prompts import VARIANTS
from wise_edge.scenes import KINDS, LEVEL_WEIGHTS, LEVELS
from wise_edge.training.common.config import LoopConfig, OptimizerConfig

LIST = "list"
"""Mixture key of the "list all objects" task; the other keys are prompt variants."""


@dataclass(frozen=True)
class PolicyModelConfig:
    """Widths of the policy. The defaults are the embedded policy's."""

    image_size: int = 112
    """Side of the square image, pixels; must equal the vision window, so that every image is one window."""
    hidden_size: int = 192
    """Text width."""
    num_layers: int = 5
    """Text layers."""
    num_heads: int = 6
    """Text attention heads, 32 wide each."""
    num_kv_heads: int = 2
    """Text key/value heads."""
    intermediate_size: int = 384
    """Text feed-forward width."""
    rope_theta: float = 30.0
    """Base of the rotary frequencies. Qwen's 1e6 leaves no frequency that tells cells of a 4 x 4 grid apart."""
    mrope_section: tuple[int, int, int] = (2, 4, 10)
    """Rotary frequencies given to time, height and width; half a head in sum."""
    init_std: float = 0.04
    """Standard deviation of the text weights at the start."""
    vision_hidden_size: int = 128
    """Vision width."""
    vision_depth: int = 4
    """Vision layers."""
    vision_heads: int = 4
    """Vision attention heads."""
    vision_intermediate_size: int = 256
    """Vision feed-forward width."""
    vision_fullatt: tuple[int, ...] = (1, 3)
    """Vision layers of full attention; periodic, as llama.cpp demands."""
    vision_init_std: float = 0.05
    """Standard deviation of the vision weights at the start."""
    max_positions: int = 1024
    """Longest prompt plus response, tokens."""


@dataclass(frozen=True, kw_only=True)
class CosineOptimizerConfig(OptimizerConfig):
    """Learning rates that fall along a cosine after the warm-up."""

    final_lr_share: float = 0.02
    """Share of the peak that the cosine ends at."""


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of training: its length and what it is fed."""

    name: str
    """Shown in logs."""
    steps: int
    """Optimizer steps."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Weight of each text task: "list" and the prompt variants. Empty: dense heads only, no text is decoded."""
    dense_weight: float = 0.0
    """Weight of the throw-away dense heads' loss at the end of the phase, reached linearly from the last phase's."""
    blend_steps: int = 0
    """Steps over which the last phase's mixture gives way to this one's, linearly."""
    level_weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Prompt variant -> how often each of `scenes.LEVELS` is drawn for its rationale; the others as `scenes` has it."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps: must be at least 1")
        for key, weight in self.mixture.items():
            if key not in (LIST, *VARIANTS) or weight < 0:
                raise ValueError(f"mixture.{key}: keys are {LIST}, {', '.join(VARIANTS)}; weights are not negative")
        for variant, weights in self.level_weights.items():
            if variant not in LEVEL_WEIGHTS or len(weights) != len(LEVELS) or min(weights) < 0 or not any(weights):
                raise ValueError(
                    f"level_weights.{variant}: keys are {', '.join(LEVEL_WEIGHTS)}; each has a weight from 0 on for"
                    f" each of {', '.join(LEVELS)}"
                )
        object.__setattr__(self, "level_weights", {**LEVEL_WEIGHTS, **self.level_weights})


@dataclass(frozen=True, kw_only=True)
class SftConfig(LoopConfig):
    """Supervised training of the policy on synthetic scenes."""

    phases: tuple[PhaseConfig, ...]
    """What is trained, in order."""
    stage: str = "sft"
    """Chooses this config in a recipe."""
    start: str | None = None
    """Policy to go on from, of the widths in `model`; a folder or a name that ships. None: fresh weights."""
    model: PolicyModelConfig = PolicyModelConfig()
    optimizer: CosineOptimizerConfig = CosineOptimizerConfig()
    batch_size: int = 32
    """Scenes a step."""
    pool_batches: int = 8
    """Batches drawn together and sorted by length, so that little is padded."""
    first_scene: int = 0
    """Scenes before this one are left out, in rounds of one scene of each kind."""
    kind_weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    """How often each kind of query is drawn, relative to the others."""
    digit_weight: float = 2.0
    """Weight of a digit's loss against other tokens'."""
    choice_weight: float = 4.0
    """Weight of the tokens that name the right object, place first: few among many, and the hardest to learn."""
    vocab_size: int = 650
    """Upper bound of the tokenizer's size, special tokens included."""
    tokenizer_samples: int = 20000
    """Texts that the tokenizer is trained on."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16 where the CPU can; weights, sums and losses stay float32."""
    ema_decay: float = 0.998
    """Decay of the averaged weights that are validated and saved."""
    validate_samples: int = 64
    """Validation scenes each time."""
    final_samples: int = 200
    """Validation scenes at the end."""
    validate_variants: tuple[str, ...] = ("verbose", "answer")
    """Variants decoded in validation."""
    max_new_tokens: int = 320
    """Longest decoded response in validation, tokens."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases: at least one is needed")
        if set(self.kind_weights) != set(KINDS) or min(self.kind_weights.values()) < 0:
            raise ValueError(f"kind_weights: keys are {', '.join(KINDS)}; weights are not negative")

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)
