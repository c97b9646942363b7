"""Draws the masks of everything in an image, of which many may lie within one another."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from wise_edge.drawing.plain import line_px
from wise_edge.images.strips import strips

_TINT, _PARTS = 4, 9  # so many parts of a pixel are tinted
_HUE_STEP = (5**0.5 - 1) / 2  # neighbors in the list get hues far from each other


def draw_regions(image: npt.NDArray[np.uint8], masks: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.uint8]:
    """Tint the masks on a copy of an image, each in a color of its own with a line along its edge.

    Args:
        image: HWC uint8 RGB.
        masks: bool [H, W]; where they overlap, the last one is seen.

    Returns:
        HWC uint8 RGB of the same size.
    """
    height, width, _ = image.shape
    owner = np.zeros((height, width), np.uint16, order="F")  # as masks of run lengths are
    count = 0
    for count, mask in enumerate(masks, start=1):
        np.copyto(owner, np.uint16(min(count, np.iinfo(np.uint16).max)), where=mask)
    colors = _list_colors(min(count, np.iinfo(np.uint16).max))
    lines = _find_edges(owner, line_px(width, height))
    drawn: npt.NDArray[np.uint8] = image.copy()
    for rows in strips((width, height)):
        region, of_region = drawn[rows], np.ascontiguousarray(owner[rows])
        color, inside = colors[of_region], (of_region > 0)[..., None]
        tinted = (region * np.uint16(_PARTS - _TINT) + color * np.uint16(_TINT)) // _PARTS
        np.copyto(region, tinted.astype(np.uint8), where=inside)
        np.copyto(region, color, where=inside & lines[rows, :, None])
    return drawn


def _list_colors(count: int) -> npt.NDArray[np.uint8]:
    """Return a color for each number from 1 to `count`, uint8 [count + 1, 3]."""
    hues = (number * _HUE_STEP % 1 for number in range(count + 1))
    return np.array([[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 1.0)] for hue in hues], np.uint8)


def _find_edges(owner: npt.NDArray[np.uint16], reach: int) -> npt.NDArray[np.bool_]:
    """Return the pixels within `reach` pixels of another owner's, along a row or a column."""
    edges = np.zeros(owner.shape, np.bool_, order="F")
    for step in range(1, reach + 1):
        for low, high in ((np.s_[:-step], np.s_[step:]), (np.s_[:, :-step], np.s_[:, step:])):
            differs = owner[low] != owner[high]
            edges[low] |= differs
            edges[high] |= differs
    return edges
