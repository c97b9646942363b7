"""COCO's segmentations as masks: polygons, and plain or compressed run lengths.

pycocotools paints polygons, since every published figure on RefCOCO has its rounding at edges. Run lengths are read
here: pycocotools reads past the end of damaged ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.extras import require
from wise_edge.geometry import Size
from wise_edge.rle import unpack_counts

MOST_MASKED_PIXELS = 500_000_000
"""Of all objects of a query together; 1,600 objects of COCO's size."""
_MIN_NUMBERS = 6  # x and y of three corners; pycocotools reads four numbers as a box


@dataclass(frozen=True)
class Segmentation:
    """A checked segmentation.

    Attributes:
        size: width and height of the image, px.
        polygons: each x1, y1, x2, y2, ... in px; pixel (0, 0) spans 0 to 1.
        runs: each the pixel counts of runs down the columns, background first; they sum to the image's area.
    """

    size: Size
    polygons: tuple[tuple[float, ...], ...]
    runs: tuple[tuple[int, ...], ...]

    def paint(self) -> NDArray[np.bool_]:
        """Return the union of all parts, bool, H x W.

        Raises:
            MissingExtraError: the segmentation has polygons and pycocotools is not installed.
        """
        width, height = self.size
        runs = list(self.runs)
        if self.polygons:
            coco = require("pycocotools.mask", extra="data")
            parts = coco.frPyObjects([list(polygon) for polygon in self.polygons], height, width)
            runs.append(tuple(unpack_counts(coco.merge(parts)["counts"].decode("ascii"))))
        mask = np.zeros((height, width), dtype=np.bool_)
        for counts in runs:
            values = np.arange(len(counts)) % 2 == 1
            mask |= np.repeat(values, counts).reshape(width, height).T
        return mask


def read_segmentation(raw: Any, size: Size) -> Segmentation:
    """Check an annotation's `segmentation`.

    Args:
        raw: a list of polygons, run lengths ({"size": [H, W], "counts": list or text}), or a list of those.
        size: width and height of the image, px.

    Raises:
        ValueError: it is empty or malformed; the message says how.
    """
    parts = raw if isinstance(raw, list) else [raw]
    if not parts:
        raise ValueError("the segmentation is empty")
    polygons = tuple(_read_polygon(part, size) for part in parts if not isinstance(part, dict))
    runs = tuple(_read_runs(part, size) for part in parts if isinstance(part, dict))
    return Segmentation(size, polygons, runs)


def _read_polygon(raw: Any, size: Size) -> tuple[float, ...]:
    if not isinstance(raw, list) or not all(type(value) in (int, float) for value in raw):
        raise ValueError("a polygon is not a list of numbers")
    if len(raw) < _MIN_NUMBERS or len(raw) % 2:
        raise ValueError(f"a polygon has {len(raw)} numbers; it needs x and y of three corners or more")
    # Also rejects NaN. Edges are walked pixel by pixel, so a distant corner would cost unbounded time and memory.
    if not all(-side <= value <= 2 * side for axis, side in enumerate(size) for value in raw[axis::2]):
        raise ValueError("a polygon is outside its image")
    return tuple(map(float, raw))


def _read_runs(raw: dict[str, Any], size: Size) -> tuple[int, ...]:
    width, height = size
    if raw.get("size") != [height, width]:
        raise ValueError(
            f"run lengths are for [height, width] {raw.get('size')!r:.60}, the image has {[height, width]}"
        )
    counts = raw.get("counts")
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("run lengths are not integers of at least 0")
    if sum(counts) != width * height:
        raise ValueError(f"run lengths cover {sum(counts)} pixels of {width * height}")
    return tuple(counts)
