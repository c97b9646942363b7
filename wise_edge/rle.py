"""Masks as COCO's compressed run lengths: runs down the columns, background first, packed into a string.

Every JSON of this project has its masks in this form, which pycocotools reads and writes
(https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.arguments import check_size
from wise_edge.geometry import Point
from wise_edge.images.strips import strips

_PAYLOAD_BITS = 5
_SIGN, _MORE, _FIRST_CHARACTER = 16, 32, 48
_LONGEST_NUMBER = 8  # characters of five bits


def compressed_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask's runs as JSON-ready data in the form of `pycocotools.mask`.

    Args:
        mask: bool, H x W.

    Returns:
        "size" as [H, W] and "counts" as text.
    """
    return compress_runs(run_lengths(mask), mask.shape)


def compress_runs(counts: Sequence[int], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what `compressed_runs` does, of the run lengths of a mask and its shape (H, W)."""
    # From the fourth run on, the difference to the previous run of the same kind is written.
    differences = [count - counts[i - 2] if i > 2 else count for i, count in enumerate(counts)]
    return {"size": list(shape), "counts": "".join(map(_pack, differences))}


def mask_of_runs(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return the mask, bool, H x W, from the result of `compressed_runs`.

    Args:
        runs: "size" as [H, W] and "counts" as text.

    Raises:
        UsageError, ValueError, TypeError, KeyError: the size is none of an image, or the runs do not fill it.
    """
    height, width = runs["size"]
    check_size((width, height), "a mask")
    area, counts = height * width, unpack_counts(runs["counts"])
    if not all(0 <= count <= area for count in counts) or sum(counts) != area:
        raise ValueError(f"the runs do not fill {width} x {height} pixels")
    return mask_of_lengths(np.asarray(counts, np.int64), (height, width))


def mask_of_lengths(counts: NDArray[np.signedinteger], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask, bool [H, W], of run lengths that fill its shape (H, W)."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape, order="F")


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths, px, of a mask's runs down its columns, of background and foreground in turn.

    Args:
        mask: bool, H x W.

    Returns:
        The first is of the background and may be 0.
    """
    height, width = mask.shape
    edges, last = [np.zeros(1, np.int64)], np.zeros(1, np.bool_)
    for columns in strips((height, width)):
        flat = np.concatenate([last, mask[:, columns].ravel(order="F")])
        edges.append(np.flatnonzero(flat[1:] != flat[:-1]) + columns.start * height)
        last = flat[-1:]
    counts: list[int] = np.diff(np.concatenate([*edges, [mask.size]])).tolist()
    return counts


def run_lengths_of_part(part: NDArray[np.bool_], corner: Point, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return what `run_lengths` does of a mask that is empty outside of a part, without making it.

    Args:
        part: bool [h, w].
        corner: column and row of its upper left pixel in the mask.
        shape: (H, W) of the mask.
    """
    rows, columns = part.shape
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = part.T
    column, row = np.nonzero(np.diff(padded, axis=1))
    edges = (corner[0] + column) * shape[0] + corner[1] + row
    if rows == shape[0]:  # a run may go on in the next column
        meets = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, [meets, meets + 1])
    counts = np.diff(edges, prepend=0, append=shape[0] * shape[1])
    return (counts if counts[-1] else counts[:-1]).astype(np.int32)


def unpack_counts(text: str) -> list[int]:
    """Read compressed run lengths: five bits a character, lowest first; from the fourth on, differences.

    Raises:
        ValueError: the text is damaged or cut short.
    """
    counts: list[int] = []
    value = length = 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 2 * _MORE or length == _LONGEST_NUMBER:
            raise ValueError("compressed run lengths are damaged")
        value |= (bits & (_MORE - 1)) << _PAYLOAD_BITS * length
        length += 1
        if not bits & _MORE:
            value -= (bits & _SIGN) << _PAYLOAD_BITS * (length - 1) + 1
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = length = 0
    if length:
        raise ValueError("compressed run lengths are cut short")
    return counts


def _pack(value: int) -> str:
    """Return a number as characters of five bits each, lowest bits first, with the sign in the last one's top bit."""
    text = ""
    while True:
        low, value = value & (2**_PAYLOAD_BITS - 1), value >> _PAYLOAD_BITS
        more = value != (-1 if low & _SIGN else 0)
        text += chr(_FIRST_CHARACTER + low + _MORE * more)
        if not more:
            return text
