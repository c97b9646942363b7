"""The description of a policy that a runtime needs, as checkpoints and bundles record it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_count
from wise_edge.errors import UsageError
from wise_edge.geometry import Size
from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import PIXELS_XY, AnswerFrame, Coordinates
from wise_edge.policy.families import FAMILIES
from wise_edge.policy.picture import Grid, PictureGeometry
from wise_edge.policy.prompts import PromptSet, check_variant
from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, Name, OneOf, Range, Width

TEXT_TOKENS = 2048
"""Tokens reserved next to the image for instruction, query and completion."""
LIST_TOKENS = 2048
"""Tokens reserved further for a list of objects: 50 with a label each, which have 40 tokens."""
MAX_IMAGE_TOKENS = 65_536
"""A policy of 840 px has 900; a runtime allocates keys and values for all of them."""
_Size = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class PolicySpec(Checked):
    """What a runtime must know about a policy.

    Attributes:
        family: one of `FAMILIES`.
        picture: how images are resized.
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
        coordinates: what the numbers of an answer count.
        form: how answers are written.
        deepstack_layers: first layers of the language model that add features of the vision tower (Qwen3-VL).
    """

    family: Annotated[str, OneOf(FAMILIES)]
    picture: PictureGeometry
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
    coordinates: Coordinates = PIXELS_XY
    form: AnswerForm = BOX_POINTS
    deepstack_layers: Annotated[int, Range(0, 1024)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.default_variant, self.prompts.variants)
        if self.picture.side is not None and self.picture.side % self.token_side:
            raise ValueError(
                f"picture.side: {self.picture.side} is not a multiple of patch_size x merge_size = {self.token_side}"
            )
        if self.deepstack_layers > self.num_layers:
            raise ValueError(f"deepstack_layers: {self.deepstack_layers}, but num_layers is {self.num_layers}")
        if self.max_image_tokens > MAX_IMAGE_TOKENS:
            raise ValueError(f"picture: an image takes {self.max_image_tokens} tokens, at most {MAX_IMAGE_TOKENS}")

    @property
    def token_side(self) -> int:
        """Side of an image token, px."""
        return self.patch_size * self.merge_size

    def picture_size(self, original: Size) -> Size:
        """Return the width and height in px that an image of the given ones is resized to."""
        return self.picture.size(original, self.token_side)

    def image_grid(self, picture: Size) -> Grid:
        """Return the columns and rows of image tokens of a resized image."""
        return picture[0] // self.token_side, picture[1] // self.token_side

    def grid_of(self, image: npt.NDArray[np.uint8]) -> Grid:
        """Return the columns and rows of image tokens of an image HWC of any size."""
        height, width, _ = image.shape
        return self.image_grid(self.picture_size((width, height)))

    def grid_size(self, grid: Grid) -> Size:
        """Return the width and height in px of a resized image, given its columns and rows of image tokens."""
        return grid[0] * self.token_side, grid[1] * self.token_side

    def frame(self, picture: Size) -> AnswerFrame:
        """Return the frame of answers on a resized image."""
        return self.coordinates.frame(picture)

    def frame_of_grid(self, grid: Grid) -> AnswerFrame:
        """Return the frame of answers on an image of so many columns and rows of tokens."""
        return self.frame(self.grid_size(grid))

    @property
    def max_image_tokens(self) -> int:
        """The most tokens that an image may take."""
        return self.picture.most_tokens(self.token_side)

    def within(self, pixels: int | None) -> PolicySpec:
        """Return the policy with pictures of at most a number of pixels; itself for None.

        Raises:
            UsageError: its pictures cannot be so small, or are smaller already.
        """
        if pixels is None:
            return self
        check_count(pixels, "pixels")
        try:
            picture = self.picture.with_budget(pixels, self.token_side)
        except ValueError as error:
            raise UsageError(f"pixels is {pixels}: {error}") from error
        if picture.most_tokens(self.token_side) > self.max_image_tokens:
            raise UsageError(
                f"pixels is {pixels}, but the policy has room for {self.max_image_tokens} image tokens of "
                f"{self.token_side} x {self.token_side} px; choose fewer, or export it again with more --pixels"
            )
        return replace(self, picture=picture)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grids of image tokens that pictures have, as (columns, rows); empty if any may come."""
        return self.picture.grid_sizes(self.token_side)

    @property
    def context_tokens(self) -> int:
        """Tokens that a runtime allocates; the 128,000 of the published models would fill a device's memory."""
        answer = LIST_TOKENS if self.form.many else 0
        return min(self.max_positions, self.max_image_tokens + TEXT_TOKENS + answer)
