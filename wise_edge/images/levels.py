"""Reading an image file as a mask: which pixels belong to something, and to which of several objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wise_edge.errors import UsageError
from wise_edge.images import open_image

_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_LARGEST = 65_535


def load_levels(source: Path) -> NDArray[np.uint16]:
    """Read the level of each pixel of a mask; 0 is background.

    Gray is taken as it is (0 and 255, 0 and 1, a number for each object). A palette whose first color is black counts
    by its numbers, any other image by its colors: 1 is every pixel that is not black. Where transparency varies, it
    alone counts: 1 is every pixel that is not fully transparent.

    Args:
        source: a PNG, BMP, TIFF, GIF or PPM file.

    Returns:
        uint16, H x W, turned upright as the picture is.

    Raises:
        UsageError: as `load_image`; or the file is of a format or coding whose compression changes pixels.
    """
    with open_image(source) as (image, _, name):
        coding = "JPEG" if "jpeg" in str(image.info.get("compression")) else image.format  # a TIFF file may hold it
        if coding not in _LOSSLESS:
            raise UsageError(f"{name} is a {coding} image, whose compression changes masks; save it as PNG")
        if image.mode == "F":
            raise UsageError(f"{name} has floating-point pixels; save it with 8 bits per channel")
        ImageOps.exif_transpose(image, in_place=True)
        return _levels(image)


def _levels(image: Image.Image) -> NDArray[np.uint16]:
    if image.has_transparency_data and not image.mode.startswith("I"):  # also of a palette, or a single color
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < alpha.max() or not alpha.any():
            return (alpha > 0).astype(np.uint16)
        if "A" in image.getbands():
            image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode == "P" and (image.getpalette("RGB") or [0, 0, 0])[:3] != [0, 0, 0]:
        image = image.convert("RGB")
    if image.mode in ("1", "L", "P"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        return np.asarray(np.abs(values).clip(max=_LARGEST), np.uint16)
    colors = np.asarray(image.convert("RGB"))
    if (colors == colors[..., :1]).all():
        return colors[..., 0].astype(np.uint16)
    return np.asarray(colors.any(axis=2), np.uint16)


def split_levels(levels: NDArray[np.uint16], most: int) -> list[NDArray[np.bool_]]:
    """Return the masks of the objects that levels number.

    Numbers run from 1 up, or from 255 down as in `Findings.mask_image`; levels that do neither, as soft edges and
    numbers of classes, are one object.

    Args:
        levels: as of `load_levels`.
        most: more numbers than these are one object, too.

    Returns:
        bool, H x W each, in the order of the numbers; none if every level is 0.
    """
    found = np.flatnonzero(np.bincount(levels.ravel()))
    found = found[found > 0]
    count = len(found)
    if count == 0:
        return []
    rising, falling = np.arange(1, count + 1), np.arange(255, 255 - count, -1)
    numbers = next((each for each in (rising, falling) if count <= most and set(each) == set(found)), None)
    return [levels > 0] if numbers is None else [levels == number for number in numbers]
