"""Masks as COCO's run lengths: runs down the columns, background first, as numbers or compressed into a string.

https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.arguments import check_size
from wise_edge.images.strips import strips

_PAYLOAD_BITS = 5
_SIGN, _MORE, _FIRST_CHARACTER = 16, 32, 48


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return a mask's runs as JSON-ready data.

    Args:
        mask: bool, H x W.

    Returns:
        "size" as [H, W] and "counts" in pixels, alternating between background and foreground; the first may be 0.
    """
    height, width = mask.shape
    edges, last = [np.zeros(1, np.int64)], np.zeros(1, np.bool_)
    for columns in strips((height, width)):
        flat = np.concatenate([last, mask[:, columns].ravel(order="F")])
        edges.append(np.flatnonzero(flat[1:] != flat[:-1]) + columns.start * height)
        last = flat[-1:]
    counts = np.diff(np.concatenate([*edges, [mask.size]]))
    return {"size": [height, width], "counts": counts.tolist()}


def mask_of_runs(runs: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Return the mask, bool, H x W, from the result of `run_lengths`.

    Raises:
        UsageError, ValueError: the size is none of an image, or the runs do not fill it.
    """
    height, width = runs["size"]
    check_size((width, height), "a mask")
    area = height * width
    if not all(type(count) is int and 0 <= count <= area for count in runs["counts"]) or sum(runs["counts"]) != area:
        raise ValueError(f"the runs do not fill {width} x {height} pixels")
    counts = np.asarray(runs["counts"], np.int64)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")


def compressed_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask's runs as JSON-ready data in the form of `pycocotools.mask`.

    Args:
        mask: bool, H x W.

    Returns:
        "size" as [H, W] and "counts" as text.
    """
    runs = run_lengths(mask)
    counts = runs["counts"]
    # From the fourth run on, the difference to the previous run of the same kind is written.
    differences = [count - counts[i - 2] if i > 2 else count for i, count in enumerate(counts)]
    return {"size": runs["size"], "counts": "".join(map(_pack, differences))}


def _pack(value: int) -> str:
    """Return a number as characters of five bits each, lowest bits first, with the sign in the last one's top bit."""
    text = ""
    while True:
        low, value = value & (2**_PAYLOAD_BITS - 1), value >> _PAYLOAD_BITS
        more = value != (-1 if low & _SIGN else 0)
        text += chr(_FIRST_CHARACTER + low + _MORE * more)
        if not more:
            return text
