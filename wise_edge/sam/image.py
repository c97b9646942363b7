"""The image preprocessing of segmenters in numpy and Pillow, shared by export and the runtimes.

Equal to `ResizeLongestSide` and `Sam.preprocess` of https://github.com/facebookresearch/segment-anything, and to
`SAM2Transforms` of https://github.com/facebookresearch/sam2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge.geometry import Size
from wise_edge.sam.spec import SamSpec


def fit_image(size: Size, spec: SamSpec) -> Size:
    """Return the (width, height) in px of a resized image in the encoder's square.

    segment-anything scales the longest side to that of the square, SAM 2 stretches both.

    Args:
        size: (width, height) of the image, px.
        spec: the segmenter.
    """
    return _fit(size, spec.input_size, stretches=spec.stretches)


def fit_prompts(size: Size, spec: SamSpec) -> Size:
    """Return the (width, height) in px of an image in the square of its prompts and masks; as `fit_image`."""
    return _fit(size, spec.prompt_side, stretches=spec.stretches)


def _fit(size: Size, side: int, *, stretches: bool) -> Size:
    if stretches:
        return side, side
    scale = side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def normalize_image(image: npt.NDArray[np.uint8], resized: Size, spec: SamSpec) -> npt.NDArray[np.float32]:
    """Resize and normalize an image, and pad it with zeros at the right and the bottom.

    Args:
        image: HWC uint8 RGB, any size.
        resized: (width, height) from `fit_image`, px.
        spec: the segmenter.

    Returns:
        float32 [1, 3, S, S], S the segmenter's input size.
    """
    scaled = Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR)
    values = (np.asarray(scaled, np.float32) - np.array(spec.pixel_mean, np.float32)) / np.array(
        spec.pixel_std, np.float32
    )
    padded = np.zeros((1, 3, spec.input_size, spec.input_size), np.float32)
    padded[0, :, : resized[1], : resized[0]] = values.transpose(2, 0, 1)
    return padded
