"""What a runtime must know to run a segmenter, and the families of segmenters."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_ANYTHING, SAM2 = "segment_anything", "sam2"
"""The families: images keep their proportions and are padded to the square, or are stretched to it."""


@dataclass(frozen=True)
class SamSpec:
    """What a runtime must know to run the segmenter.

    Attributes:
        family: architecture, "segment_anything" (images keep their proportions and are padded to the square) or
            "sam2" (they are stretched to it).
        input_size: side in pixels of the square that the encoder takes.
        low_res_size: side of the decoder's masks and of the mask that it takes as a prompt.
        pixel_mean: per-channel mean of images from 0 to 255.
        pixel_std: per-channel standard deviation of images from 0 to 255.
        multimask: whether the best scored of the decoder's three masks is taken, as the reference of WISE and Seg-Zero
            does; otherwise its single one.
    """

    family: str
    input_size: int
    low_res_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    multimask: bool
