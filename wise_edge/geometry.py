"""Boxes, points and distances inside masks.

A box is XYXY with half-open pixel edges: `x1, y1` are the smallest column and row that it covers and `x2, y2` the
largest plus one, so its area is `(x2 - x1) * (y2 - y1)`. A point is the column and row of a pixel. Sizes of coordinate
frames are `(width, height)` in pixels. All arithmetic is on integers, so results are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
Point = tuple[int, int]
Size = tuple[int, int]

# Squared distances up to 2 * 181**2 fit into 16 bits, of which numpy compares sixteen at a time.
_LARGEST_UINT16_RADIUS = 181

_SLIVER = 4  # largest ratio of the radii of the first and second inscribed circle


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 if they do not overlap or have no area.

    Args:
        a: XYXY, half-open, pixels of any frame.
        b: XYXY, half-open, pixels of the same frame.

    Returns:
        A fraction from 0 to 1.
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union


def clip_box(box: Box, size: Size) -> Box:
    """Clip a box to a frame; a box outside it, or without extent, becomes the nearest box of one pixel.

    Args:
        box: XYXY, half-open, possibly outside the frame.
        size: width and height of the frame in pixels, at least 1.

    Returns:
        XYXY with `0 <= x1 < x2 <= width` and `0 <= y1 < y2 <= height`.
    """
    x1, x2 = _clip_span(box[0], box[2], size[0])
    y1, y2 = _clip_span(box[1], box[3], size[1])
    return x1, y1, x2, y2


def clip_point(point: Point, size: Size) -> Point:
    """Move a point to the nearest pixel of a frame.

    Args:
        point: column and row, possibly outside the frame.
        size: width and height of the frame in pixels, at least 1.

    Returns:
        Column from 0 to width - 1 and row from 0 to height - 1.
    """
    return min(max(point[0], 0), size[0] - 1), min(max(point[1], 0), size[1] - 1)


def scale_box(box: Box, source: Size, target: Size) -> Box:
    """Map a box from one frame to another that shows the same image, stretched.

    Args:
        box: XYXY, half-open, pixels of `source`.
        source: width and height of the box's frame in pixels.
        target: width and height of the other frame in pixels.

    Returns:
        XYXY, half-open, pixels of `target`: edges rounded to the nearest pixel (half up) and clipped, at least one
        pixel wide and high. Mapping to a frame that is not smaller and back returns the same box.
    """
    x1, x2 = (_scale_edge(x, source[0], target[0]) for x in (box[0], box[2]))
    y1, y2 = (_scale_edge(y, source[1], target[1]) for y in (box[1], box[3]))
    return clip_box((x1, y1, x2, y2), target)


def scale_point(point: Point, source: Size, target: Size) -> Point:
    """Map a pixel from one frame to another that shows the same image, stretched.

    Args:
        point: column and row in `source`.
        source: width and height of the point's frame in pixels.
        target: width and height of the other frame in pixels.

    Returns:
        The pixel of `target` that contains the center of the source pixel, clipped to the frame. Mapping to a frame
        that is not smaller and back returns the same point.
    """
    x = (2 * point[0] + 1) * target[0] // (2 * source[0])
    y = (2 * point[1] + 1) * target[1] // (2 * source[1])
    return clip_point((x, y), target)


def mask_box(mask: NDArray[np.bool_]) -> Box:
    """Smallest box around a mask.

    Args:
        mask: bool, H x W.

    Returns:
        XYXY, half-open, pixels of the mask.

    Raises:
        ValueError: the mask is empty.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        raise ValueError("an empty mask has no box")
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def unite(masks: Iterable[NDArray[np.bool_]], size: Size) -> NDArray[np.bool_]:
    """Return the union of masks of a size (width, height), bool, H x W; empty if there are none."""
    union = np.zeros(size[::-1], np.bool_)
    for mask in masks:
        union |= mask
    return union


def distance_transform(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Exact Euclidean distance from each pixel to the nearest background pixel, between pixel centers.

    Args:
        mask: bool, H x W; everything outside the image counts as background.

    Returns:
        float32, H x W, pixels: 0 on the background, at least 1 inside the mask.
    """
    distances = np.zeros(mask.shape, np.float32)
    if mask.any():
        x1, y1, x2, y2 = mask_box(mask)
        distances[y1:y2, x1:x2] = np.sqrt(_squared_distances(mask[y1:y2, x1:x2]), dtype=np.float32)
    return distances


def interior_points(mask: NDArray[np.bool_]) -> tuple[Point, Point]:
    """Centers of the two largest inscribed circles of a mask.

    The first is the maximum of the distance transform; its open disc is removed from the mask, and the second is the
    maximum of what remains. Ties go to the smallest row, then to the smallest column. If the second circle's radius is
    less than a quarter of the first's, the circle is in a sliver at the edge, where no prompt should point; then the
    first center is returned twice.

    Args:
        mask: bool, H x W, at least one pixel set.

    Returns:
        Two points inside the mask, column and row in pixels, possibly the same one twice.

    Raises:
        ValueError: the mask is empty.
    """
    x1, y1, x2, y2 = mask_box(mask)
    crop = mask[y1:y2, x1:x2]
    column, row, squared_radius = _deepest(crop)
    rest = crop & (_squared_range(y2 - y1, row)[:, None] + _squared_range(x2 - x1, column) >= squared_radius)
    if not rest.any():
        return (x1 + column, y1 + row), (x1 + column, y1 + row)
    second_column, second_row, second_squared_radius = _deepest(rest)
    if _SLIVER**2 * second_squared_radius < squared_radius:
        second_column, second_row = column, row
    return (x1 + column, y1 + row), (x1 + second_column, y1 + second_row)


def _clip_span(low: int, high: int, limit: int) -> tuple[int, int]:
    low = min(max(low, 0), limit - 1)
    return low, min(max(high, low + 1), limit)


def _scale_edge(value: int, source: int, target: int) -> int:
    return (2 * value * target + source) // (2 * source)


def _squared_range(length: int, origin: int) -> NDArray[np.int64]:
    return (np.arange(length) - origin) ** 2


def _deepest(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    squared = _squared_distances(mask)
    row, column = divmod(int(squared.argmax()), mask.shape[1])
    return column, row, int(squared[row, column])


def _squared_distances(mask: NDArray[np.bool_]) -> NDArray[np.unsignedinteger]:
    """Squared distances to the background, which includes everything outside `mask`.

    Two exact passes: distances along the rows, then the lower envelope of parabolas down the columns. The second pass
    shifts the entire array by one more row at a time, which keeps numpy's accesses contiguous, and ends as soon as no
    row further away can be nearer.
    """
    height, width = mask.shape
    inside = np.zeros((height + 2, width + 2), bool)
    inside[1:-1, 1:-1] = mask
    columns = np.arange(width + 2, dtype=np.int32)
    left = np.maximum.accumulate(np.where(inside, 0, columns), axis=1)
    right = np.minimum.accumulate(np.where(inside, width + 1, columns)[:, ::-1], axis=1)[:, ::-1]
    along_rows = np.minimum(columns - left, right - columns)
    dtype = np.uint16 if along_rows.max() <= _LARGEST_UINT16_RADIUS else np.uint64
    parabolas = along_rows.astype(dtype) ** 2
    squared: NDArray[np.unsignedinteger] = parabolas.copy()
    step = 1
    while step < height + 2 and step * step < squared.max():
        shifted = parabolas + dtype(step * step)
        np.minimum(squared[step:], shifted[:-step], out=squared[step:])
        np.minimum(squared[:-step], shifted[step:], out=squared[:-step])
        step += 1
    return squared[1:-1, 1:-1]
