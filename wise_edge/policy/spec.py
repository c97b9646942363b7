"""The description of a policy that a runtime needs, as checkpoints and bundles record it."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.policy.prompts import PromptSet

TEXT_TOKENS = 2048
"""Tokens reserved next to the image for instruction, query and completion."""


@dataclass(frozen=True)
class PolicySpec:
    """What a runtime must know about a policy.

    Attributes:
        family: architecture, by transformers' name: "qwen2_vl", "qwen2_5_vl" or "qwen3_vl".
        input_size: side in pixels of the square that images are resized to; answers are in pixels of this square.
        patch_size: side of a patch in pixels.
        merge_size: side of the group of patches that makes one image token, in patches.
        temporal_patch_size: how often a still image is repeated along time.
        image_mean: per-channel mean of images scaled to 0 to 1.
        image_std: per-channel standard deviation of images scaled to 0 to 1.
        prompts: the wording that the policy was trained with.
        default_variant: the prompt variant that is used unless another is requested.
        image_token: the tokenizer's placeholder for one image token.
        eos_tokens: tokens that end a completion.
        hidden_size: width of the language model.
        num_layers: layers of the language model.
        num_kv_heads: key/value heads of a layer.
        head_dim: width of a head.
        max_positions: longest sequence in tokens, prompt and completion together.
    """

    family: str
    input_size: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    prompts: PromptSet
    default_variant: str
    image_token: str
    eos_tokens: tuple[str, ...]
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_positions: int

    @property
    def image_grid(self) -> int:
        """Image tokens along a side of the image."""
        return self.input_size // (self.patch_size * self.merge_size)

    @property
    def context_tokens(self) -> int:
        """Tokens that a runtime allocates; the 128,000 of the published models would fill a device's memory."""
        return min(self.max_positions, self.image_grid**2 + TEXT_TOKENS)
