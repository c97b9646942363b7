"""The description of a policy that a runtime needs, as checkpoints and bundles record it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from wise_edge.policy.prompts import PromptSet, check_variant
from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, Name, OneOf, Range, Side, Width

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Architectures, by transformers' names."""
TEXT_TOKENS = 2048
"""Tokens reserved next to the image for instruction, query and completion."""
MAX_IMAGE_TOKENS = 65_536
"""A policy of 840 px has 900; a runtime allocates keys and values for all of them."""
_Size = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class PolicySpec(Checked):
    """What a runtime must know about a policy.

    Attributes:
        family: one of `FAMILIES`.
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

    family: Annotated[str, OneOf(FAMILIES)]
    input_size: Side
    patch_size: _Size
    merge_size: _Size
    temporal_patch_size: _Size
    image_mean: tuple[ChannelMean, ChannelMean, ChannelMean]
    image_std: tuple[ChannelDeviation, ChannelDeviation, ChannelDeviation]
    prompts: PromptSet
    default_variant: Name
    image_token: Name
    eos_tokens: Annotated[tuple[Name, ...], Range(1, 100)]
    hidden_size: Width
    num_layers: _Size
    num_kv_heads: _Size
    head_dim: _Size
    max_positions: Annotated[int, Range(1, 10**8)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.default_variant, self.prompts.variants)
        if self.input_size % (self.patch_size * self.merge_size):
            raise ValueError(
                f"input_size: {self.input_size} is no multiple of patch_size x merge_size = "
                f"{self.patch_size * self.merge_size}"
            )
        if self.image_grid**2 > MAX_IMAGE_TOKENS:
            raise ValueError(f"input_size: an image takes {self.image_grid**2} tokens, at most {MAX_IMAGE_TOKENS}")

    @property
    def image_grid(self) -> int:
        """Image tokens along a side of the image."""
        return self.input_size // (self.patch_size * self.merge_size)

    @property
    def context_tokens(self) -> int:
        """Tokens that a runtime allocates; the 128,000 of the published models would fill a device's memory."""
        return min(self.max_positions, self.image_grid**2 + TEXT_TOKENS)
