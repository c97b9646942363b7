"""Checks of arguments that many calls of the Python API take, and the words for what was given instead."""

from __future__ import annotations

import math
import reprlib

import numpy as np

from wise_edge.errors import UsageError


def describe(value: object) -> str:
    """Return what an argument is: dtype and shape of an array or tensor, else type and the beginning of the value."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"{dtype} {list(shape)}"
    return "None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def check_image(image: object) -> None:
    """Raise `UsageError` for anything but a numpy array, uint8 RGB [H, W, 3], with pixels."""
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    ):
        raise UsageError(f"expected a uint8 RGB image [H, W, 3], got {describe(image)}")


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
