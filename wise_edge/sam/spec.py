"""The description of a segmenter that a runtime needs, and the families of segmenters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, OneOf, Side

SEGMENT_ANYTHING, SAM2 = "segment_anything", "sam2"
"""The families. The first pads images to the square and keeps their proportions, the second stretches them."""
MOST_PROMPTS = 16
"""Prompts of one call of a mask decoder, whose memory grows with them."""


@dataclass(frozen=True)
class SamSpec(Checked):
    """What a runtime must know about a segmenter.

    Attributes:
        family: architecture, "segment_anything" (images keep their proportions and are padded to the square) or
            "sam2" (they are stretched to it).
        input_size: side in pixels of the encoder's square input.
        low_res_size: side in pixels of the decoder's masks and of the mask prompt.
        pixel_mean: per-channel mean of images from 0 to 255.
        pixel_std: per-channel standard deviation of images from 0 to 255.
        multimask: whether to use the decoder's mask with the best score of three, as WISE's and Seg-Zero's reference
            code does, instead of its single mask.
    """

    family: Annotated[str, OneOf((SEGMENT_ANYTHING, SAM2))]
    input_size: Side
    low_res_size: Side
    pixel_mean: tuple[ChannelMean, ChannelMean, ChannelMean]
    pixel_std: tuple[ChannelDeviation, ChannelDeviation, ChannelDeviation]
    multimask: bool
