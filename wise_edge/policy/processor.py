"""How a checkpoint's images are prepared: the settings of transformers' image processor, judged against the model.

transformers 5 saves them inside processor_config.json, older versions as preprocessor_config.json; of both it takes the
former, and so do we.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.arguments import is_count
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.policy.picture import ASPECT, PictureGeometry

LARGE_SIDE = 840
"""Side in px of a square that has as many pixels as an image should, where a processor accepts many sizes: the setting
of WISE (https://github.com/mrazhou/WISE) and Seg-Zero for Qwen2.5-VL. As a square for Qwen3-VL it is rounded up to a
multiple of its larger image tokens."""
_DEFAULT_PIXELS = (56 * 56, 28 * 28 * 1280)
"""Least and most pixels of transformers' `Qwen2VLImageProcessor` if its settings name none."""
_MODEL_ENTRIES = {
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}
"""Settings of the processor that must be the vision tower's, and their names there."""


@dataclass(frozen=True)
class ImageSettings:
    """Settings of an image processor.

    Attributes:
        patch_size: side of a patch, px.
        merge_size: side of the group of patches that makes one image token, patches.
        temporal_patch_size: how often a still image is repeated along time.
        mean: per-channel mean of images scaled to 0 to 1.
        std: per-channel standard deviation of images scaled to 0 to 1.
        least_pixels: pixels of the smallest image that it makes.
        most_pixels: pixels of the largest one.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    least_pixels: int
    most_pixels: int

    @property
    def one_square(self) -> bool:
        """Whether it makes images of one number of pixels, that of a square; see `has_one_square`."""
        return has_one_square(self.least_pixels, self.most_pixels, self.patch_size * self.merge_size)

    def square(self) -> PictureGeometry:
        """Return the geometry of squares; see `square_side`."""
        unit = self.patch_size * self.merge_size
        return PictureGeometry.square(square_side(self.least_pixels, self.most_pixels, unit))

    def aspect(self) -> PictureGeometry:
        """Return the geometry that keeps the aspect, its budget not above `LARGE_SIDE` squared if it may be."""
        return PictureGeometry(
            ASPECT,
            least_pixels=self.least_pixels,
            most_pixels=min(self.most_pixels, max(self.least_pixels, LARGE_SIDE**2)),
        )


def read_image_settings(folder: Path, vision: Mapping[str, Any]) -> ImageSettings:
    """Read the settings of a Hugging Face folder's image processor.

    Args:
        folder: has processor_config.json or preprocessor_config.json.
        vision: the vision tower's entries of config.json, which the processor must fit.

    Raises:
        UsageError: the settings are missing or malformed, do not fit the model, or ask for something else than scaling
            to 0 to 1 and normalizing; the message names file and entry.
    """
    if (found := find_settings(folder)) is None:
        raise UsageError(
            f"{folder} has neither preprocessor_config.json nor a processor_config.json with image_processor; copy the "
            "complete checkpoint"
        )
    file, settings = found
    sizes = {}
    for name, of_model in _MODEL_ENTRIES.items():
        expected = vision.get(of_model)
        sizes[name] = size = settings.get(name, expected)
        if not is_count(size):
            raise UsageError(f"{file}: {name} is {size!r}; copy the complete checkpoint")
        if expected not in (None, size):
            raise UsageError(f"{file}: {name} is {size}, but the model's {of_model} is {expected}; copy its own file")
    for name in ("do_rescale", "do_normalize"):
        if settings.get(name) is False:
            raise UsageError(f"{file}: {name} is false; only images that are rescaled and normalized are supported")
    factor = settings.get("rescale_factor")
    if factor is not None and not (isinstance(factor, float) and math.isclose(factor, 1 / 255, rel_tol=1e-3)):
        raise UsageError(f"{file}: rescale_factor is {factor}; only 1/255 is supported")
    unit = sizes["patch_size"] * sizes["merge_size"]
    mean, std = (read_channels(file, settings, name) for name in ("image_mean", "image_std"))
    if not all(std):
        raise UsageError(f"{file}: image_std holds 0; copy the complete checkpoint")
    least, most = pixel_bounds(file, settings, unit)
    return ImageSettings(**sizes, mean=mean, std=std, least_pixels=least, most_pixels=most)


def pixel_bounds(file: Path, settings: Mapping[str, Any], unit: int) -> tuple[int, int]:
    """Return the least and most pixels of the images that a processor makes.

    Args:
        file: where the settings come from, for messages.
        settings: the processor's; least and most pixels are `min_pixels` and `max_pixels`, or in `size`.
        unit: side of an image token, px.

    Raises:
        UsageError: the settings are malformed, or leave no room for an image token.
    """
    size = settings.get("size") or {}
    if not isinstance(size, Mapping):
        raise UsageError(f"{file}: size is {size!r}; it needs shortest_edge and longest_edge")
    bounds = []
    names = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
    for (pixels, edge), default in zip(names, _DEFAULT_PIXELS, strict=True):
        # As in transformers, an entry of its own wins over `size`.
        found = [value for value in (settings.get(pixels), size.get(edge), size.get(pixels)) if value is not None]
        bounds.append(found[0] if found else default)
    least, most = bounds
    if not is_count(least) or not is_count(most) or least > most or most < unit * unit:
        raise UsageError(f"{file}: images of {least} to {most} pixels cannot be cut into tokens of {unit} x {unit}")
    return least, most


def has_one_square(least: int, most: int, unit: int) -> bool:
    """Return whether a processor's only number of pixels is that of a square, as our trainings set it for theirs.

    Args:
        least: pixels of the smallest image that it makes.
        most: pixels of the largest one.
        unit: side of an image token, px; a square has a multiple of it.
    """
    return least == most == (math.isqrt(most) // unit * unit) ** 2


def square_side(least: int, most: int, unit: int) -> int:
    """Return the side in px of what a processor makes of a square image of `LARGE_SIDE`: its own, if it has only one.

    Args:
        least: pixels of the smallest image that it makes.
        most: pixels of the largest one.
        unit: side of an image token, px.
    """
    smallest, largest = math.ceil(math.sqrt(least) / unit) * unit, math.isqrt(most) // unit * unit
    return min(max(math.ceil(LARGE_SIDE / unit) * unit, smallest), largest)


def find_settings(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the file that holds the settings of a Hugging Face folder's image processor, and them; None without one.

    Raises:
        UsageError: a file is not JSON.
    """
    joint, single = folder / "processor_config.json", folder / "preprocessor_config.json"
    nested = read_json(joint).get("image_processor") if joint.is_file() else None
    if isinstance(nested, Mapping):
        return joint, nested
    return (single, read_json(single)) if single.is_file() else None


def read_channels(file: Path, settings: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Return an entry of three numbers; raises `UsageError` that names file and entry if it is none."""
    match settings.get(name):
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            return float(red), float(green), float(blue)
        case other:
            raise UsageError(f"{file}: {name} is {other!r}, not three numbers; copy the complete checkpoint")
