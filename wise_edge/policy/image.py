"""Qwen2-VL image preprocessing in numpy and Pillow, shared by training and the runtimes.

The numbers equal those of transformers' `Qwen2VLImageProcessor` for an image that already has its final size. The
resize before that is ours (Pillow's antialiased bicubic on uint8), so that every backend sees exactly the same pixels,
whatever library runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge.geometry import Size
from wise_edge.policy.spec import PolicySpec

# OpenAI CLIP's statistics, which Qwen2.5-VL was trained with:
# https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/preprocessor_config.json
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def resize(image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Stretch an image to a size, bicubic with antialiasing.

    Args:
        image: HWC uint8 RGB, 0 to 255.
        size: width and height, px.

    Returns:
        HWC uint8 RGB of that size; the input itself if it already has it.
    """
    if image.shape[1::-1] == size:
        return image
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized)


def fit_picture(image: npt.NDArray[np.uint8], spec: PolicySpec) -> npt.NDArray[np.uint8]:
    """Resize an image (HWC uint8 RGB, any size) as a policy wants it."""
    height, width, _ = image.shape
    return resize(image, spec.picture_size((width, height)))


@lru_cache(maxsize=8)
def _level_table(mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    # A uint8 channel has 256 levels, so normalizing is one gather from a [3, 256] table.
    levels = np.arange(256, dtype=np.float64)[None, :] / 255.0
    table = (levels - np.asarray(mean)[:, None]) / np.asarray(std)[:, None]
    rounded: npt.NDArray[np.float32] = table.astype(np.float32)
    return rounded


def patchify(
    images: npt.NDArray[np.uint8],
    patch_size: int = 14,
    temporal_patch_size: int = 2,
    merge_size: int = 2,
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
) -> npt.NDArray[np.float32]:
    """Normalize images and cut them into the flat patches that Qwen2-VL's vision tower reads.

    Args:
        images: HWC or BHWC uint8 RGB, 0 to 255; H and W multiples of `patch_size * merge_size`.
        patch_size: side of a patch in pixels.
        temporal_patch_size: how often a still image is repeated along time.
        merge_size: side of a group of patches, in patches; the patches of a group are contiguous.
        mean: per-channel mean of the image scaled to 0 to 1.
        std: per-channel standard deviation of the image scaled to 0 to 1.

    Returns:
        float32 [B * patches, 3 * temporal_patch_size * patch_size ** 2], one image after another.

    Raises:
        ValueError: the images are not uint8 RGB, or their sides are not multiples of a group of patches.
    """
    batch = images[None] if images.ndim == 3 else images
    unit = patch_size * merge_size
    if (
        batch.dtype != np.uint8
        or batch.ndim != 4
        or batch.shape[3] != 3
        or batch.shape[1] % unit
        or batch.shape[2] % unit
    ):
        raise ValueError(f"images must be uint8 RGB with sides multiples of {unit}, not {images.dtype} {images.shape}")
    count, height, width, _ = batch.shape
    blocks = batch.reshape(
        count, height // unit, merge_size, patch_size, width // unit, merge_size, patch_size, 3
    ).transpose(0, 1, 4, 2, 5, 7, 3, 6)  # [B, rows, columns, merge, merge, channel, patch, patch]
    channel = np.arange(3).reshape(3, 1, 1)
    values = _level_table(tuple(mean), tuple(std))[channel, blocks]
    frames = np.repeat(values[:, :, :, :, :, :, None], temporal_patch_size, axis=6)
    return frames.reshape(-1, 3 * temporal_patch_size * patch_size**2)
