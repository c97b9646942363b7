"""Small holes and islands of masks, found among runs of pixels.

What is removed is what segment-anything's `remove_small_regions` removes with OpenCV.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def remove_small_regions(mask: npt.NDArray[np.bool_], min_area: int) -> bool:
    """Fill holes of a mask, then clear islands, that have fewer pixels; of islands that are all so small one remains.

    Pixels that touch at a corner belong together, in the mask and outside of it.

    Args:
        mask: bool [H, W], changed in place.
        min_area: px.

    Returns:
        Whether there were any.
    """
    changed = False
    for filled in (True, False):
        rows, starts, ends = _find_runs(mask != filled)
        regions = _join(rows, starts, ends)
        areas = np.bincount(regions, ends - starts)
        small = areas < min_area
        if not small.any():
            continue
        changed = True
        if not filled and small.all():
            small[areas.argmax()] = False
        for run in np.flatnonzero(small[regions]):
            mask[rows[run], starts[run] : ends[run]] = filled
    return changed


Indices = npt.NDArray[np.intp]


def _find_runs(mask: npt.NDArray[np.bool_]) -> tuple[Indices, Indices, Indices]:
    """Return the row, first and last column (exclusive) of each run along the rows of a mask, in order."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, columns = np.nonzero(np.diff(padded, axis=1))
    return rows[::2], columns[::2], columns[1::2]


def _join(rows: Indices, starts: Indices, ends: Indices) -> Indices:
    """Return the region of each run, from 0 on in the order of their first runs."""
    width = int(ends.max(initial=0)) + 2
    above = (rows - 1) * width
    first = np.searchsorted(rows * width + ends, above + starts)  # of the runs above that touch it, at corners too
    last = np.searchsorted(rows * width + starts, above + ends, side="right")
    root = list(range(len(rows)))

    def find(run: int) -> int:
        while root[run] != run:
            root[run] = root[root[run]]
            run = root[run]
        return run

    for run, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for touching in range(low, high):
            one, other = sorted((find(run), find(touching)))
            root[other] = one
    return np.unique([find(run) for run in root], return_inverse=True)[1].reshape(-1)
