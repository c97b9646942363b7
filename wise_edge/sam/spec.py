"""The description of a segmenter that a runtime needs, and the families of segmenters."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_ANYTHING, SAM2 = "segment_anything", "sam2"
"""The families. The first pads images to the square and keeps their proportions, the second stretches them."""


@dataclass(frozen=True)
class SamSpec:
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

    family: str
    input_size: int
    low_res_size: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    multimask: bool
