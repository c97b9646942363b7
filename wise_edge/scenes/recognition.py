"""Judge whether a picture and a query are of the kind of scenes, the only one that the embedded models know."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.scenes.family import SHAPES, Family
from wise_edge.scenes.vocabulary import unknown_words

_OTHER_KIND = "built-in demo model: it knows only synthetic shapes on plain backgrounds, and {}; see docs/gpu.md"
OTHER_PICTURE = _OTHER_KIND.format("this picture shows something else")
OTHER_QUERY = _OTHER_KIND.format("this query has words that it never learned")
"""What is said where an embedded model answers a picture or a query that is not of its kind."""
_GRID = 56  # pixels of each side that are looked at, whatever the picture's size
_BLOCK = 4
_MUTED = 40  # largest difference of two channels in the background, with what JPEG adds
_CLOSE = 32  # of each channel to the color of an object, with its own spread, noise and JPEG
_SHADE = 0.45  # of the dark stripes of an object
_LEAST_MUTED, _LEAST_COLORED = 0.6, 0.015  # shares of the picture
_MOST_OTHER = (0.5, 0.08)  # share of other colors: by share of the objects' colors, since edges mix them, and at least
_MOST_SPREAD = 12  # standard deviation of brightness that 90% of the blocks of background stay below
_BRIGHTNESS = (15, 248)  # of the background, without its darkest and brightest 2%


def explain_other_kind(image: NDArray[np.uint8], query: str) -> str | None:
    """Return what an embedded model does not know of a picture or a query, as a sentence; None if it knows both.

    Args:
        image: HWC uint8 RGB, any size.
        query: what it was asked.
    """
    if not is_scene_like(image):
        return OTHER_PICTURE
    return OTHER_QUERY if unknown_words(query) else None


def is_scene_like(image: NDArray[np.uint8], family: Family = SHAPES) -> bool:
    """Return whether a picture looks like a scene: a smooth, muted background, and objects of the family's colors.

    It looks at a grid of 56 x 56 pixels and takes about a millisecond at any size. A scene that was resized,
    stretched or saved as JPEG remains one. docs/log.md has how often it errs.

    Args:
        image: HWC uint8 RGB, any size.
        family: what the scenes contain.
    """
    height, width, _ = image.shape
    rows, columns = ((2 * np.arange(_GRID) + 1) * side // (2 * _GRID) for side in (height, width))
    pixels = image[rows[:, None], columns].astype(np.int16)
    muted = pixels.max(axis=2) - pixels.min(axis=2) <= _MUTED
    if muted.mean() < _LEAST_MUTED:
        return False
    rgb = np.array([color for _, color in family.colors])
    saturated = pixels[~muted]
    colored, shaded = (_share_near(saturated, paint, muted.size) for paint in (rgb, rgb * _SHADE))
    other = len(saturated) / muted.size - colored - shaded
    by_share, least = _MOST_OTHER
    return colored >= _LEAST_COLORED and other <= by_share * colored + least and _is_smooth(pixels.mean(axis=2), muted)


def _share_near(pixels: NDArray[np.int16], colors: NDArray[Any], of: int) -> float:
    distances = np.abs(pixels[:, None] - colors.astype(np.int16)).max(axis=2)
    return float(np.count_nonzero(distances.min(axis=1) <= _CLOSE) / of)


def _is_smooth(brightness: NDArray[np.float64], muted: NDArray[np.bool_]) -> bool:
    """Return whether the muted part of a picture has the brightness of a scene's background, and changes as slowly."""
    dark, bright = np.percentile(brightness[muted], (2, 98))
    if dark < _BRIGHTNESS[0] or bright > _BRIGHTNESS[1]:
        return False
    blocks = (_GRID // _BLOCK, _BLOCK, _GRID // _BLOCK, _BLOCK)
    counts, sums, squares = (
        each.reshape(blocks).sum(axis=(1, 3)) for each in (muted, muted * brightness, muted * brightness**2)
    )
    full = counts > 0.9 * _BLOCK**2  # elsewhere an object lies
    means = sums[full] / counts[full]
    spread = np.sqrt(np.maximum(0, squares[full] / counts[full] - means**2))
    return len(means) > 0 and float(np.percentile(spread, 90)) <= _MOST_SPREAD
