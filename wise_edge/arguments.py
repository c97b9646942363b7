"""Checks of arguments that many calls of the Python API take, and the words for what was given instead.

Also the bounds of an image, wherever it comes from, so that one picture takes neither a device's memory nor its time.
"""

from __future__ import annotations

import math
import reprlib

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.geometry import Size

MAX_PIXELS = 25_000_000
MAX_SIDE_PX = 16_384
MAX_ASPECT = 128
"""Largest ratio of an image's sides; that of a lidar's image of 16 rows of 2048."""
MAX_KEPT_BYTES = 100_000_000
"""Pixels of images that are kept for further queries, whatever their number: of four in 4K, or of one of any size."""


def describe(value: object) -> str:
    """Return what an argument is: dtype and shape of an array or tensor, else type and the beginning of the value."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"{dtype} {list(shape)}"
    return "None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def check_image(image: object) -> None:
    """Raise `UsageError` for anything but a numpy array, uint8 RGB [H, W, 3], of a size that `check_size` accepts."""
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    ):
        raise UsageError(f"expected a uint8 RGB image [H, W, 3], got {describe(image)}")
    check_size((image.shape[1], image.shape[0]), "the image")


def check_size(size: Size, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Check an image's size, before its pixels are read.

    Args:
        size: (width, height), px.
        name: what the error calls the image.
        max_pixels: largest number of pixels.

    Raises:
        UsageError: it has no pixels, too many of them, too many on a side, or is too long for its width.
    """
    width, height = size
    has = f"{name} has {width} x {height} pixels"
    if min(size) <= 0:
        raise UsageError(f"{name} has no pixels; pass another image")
    if width * height > max_pixels:
        raise UsageError(f"{has}; at most {max_pixels / 1e6:g} million are read; make it smaller")
    if max(size) > MAX_SIDE_PX:
        raise UsageError(f"{has}; at most {MAX_SIDE_PX} on a side are read; make it smaller")
    if max(size) > MAX_ASPECT * min(size):
        raise UsageError(f"{has}; a side of at most {MAX_ASPECT} times the other is read; crop it")


def is_number(value: object) -> bool:
    """Return whether an argument is a finite number, Python's or numpy's."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)


def is_count(value: object, least: int = 1) -> bool:
    """Return whether an argument is an integer, Python's or numpy's, of at least `least`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def check_number(value: object, name: str) -> None:
    """Raise `UsageError` for anything but a finite number."""
    if not is_number(value):
        raise UsageError(f"{name} must be a finite number, got {describe(value)}")


def check_count(value: object, name: str, least: int = 1) -> None:
    """Raise `UsageError` for anything but an integer of at least `least`."""
    if not is_count(value, least):
        raise UsageError(f"{name} must be an integer of at least {least}, got {describe(value)}")


def check_callable(value: object, name: str) -> None:
    """Raise `UsageError` for anything but a function."""
    if not callable(value):
        raise UsageError(f"{name} must be a function, got {describe(value)}")
