"""How well masks and boxes agree with the truth, and how sure that is.

gIoU is the mean of each sample's IoU; cIoU is the summed intersection over the summed union, so large objects weigh
more. Where prediction and truth are both empty they agree, IoU 1, and the sample adds nothing to cIoU's sums; where
one of them is empty, IoU 0, and the other's area is the union. Intervals are percentile bootstraps over samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
# Resampled indices are drawn in blocks of about this many numbers, so that memory stays small for any data set.
_BLOCK_NUMBERS = 2_000_000


def mask_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """Intersection and union of two masks.

    Args:
        a: bool, H x W.
        b: bool, H x W.

    Returns:
        Two counts of pixels.

    Raises:
        ValueError: the masks differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"masks differ in size: {a.shape} and {b.shape}")
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks, a fraction; 1 where both are empty.

    Raises:
        ValueError: the masks differ in size.
    """
    intersection, union = mask_overlap(a, b)
    return intersection / union if union else 1.0


def sample_ious(intersections: ArrayLike, unions: ArrayLike) -> NDArray[np.float64]:
    """IoU of each sample.

    Args:
        intersections: pixels, one number a sample.
        unions: pixels, one number a sample; 0 where prediction and truth are both empty.

    Returns:
        float64, fractions, 1 where the union is 0.
    """
    inner, outer = np.asarray(intersections, np.float64), np.asarray(unions, np.float64)
    return np.divide(inner, outer, out=np.ones_like(outer), where=outer > 0)


def giou_ciou(intersections: ArrayLike, unions: ArrayLike) -> tuple[float, float]:
    """Return gIoU and cIoU over samples.

    Args:
        intersections: pixels, one number a sample, at least one sample.
        unions: pixels, one number a sample.

    Returns:
        Two fractions. cIoU is 1 where every union is 0.

    Raises:
        ValueError: there is no sample.
    """
    ious = sample_ious(intersections, unions)
    if ious.size == 0:
        raise ValueError("there is no sample to average")
    total = float(np.sum(unions))
    return float(ious.mean()), float(np.sum(intersections)) / total if total else 1.0


def bootstrap_interval(
    values: ArrayLike, weights: ArrayLike | None = None, n: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a mean, or of a ratio of sums, when samples are drawn anew with replacement.

    Args:
        values: one number a sample, at least one: what is averaged, or the numerators of a ratio (intersections).
        weights: None for a mean; for a ratio the denominators (unions), resampled together with `values`.
        n: resamples.
        seed: of the generator; the same seed gives the same interval.

    Returns:
        The 2.5th and 97.5th percentile, in the unit of the mean or ratio; both 1 where every denominator is 0. A
        resample whose denominators are all 0 counts as 1, as in `giou_ciou`.

    Raises:
        ValueError: there is no sample, or the two lengths differ.
    """
    top = np.asarray(values, np.float64).ravel()
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, np.float64).ravel()
    if top.size == 0 or top.size != bottom.size:
        raise ValueError(f"need one or more samples with one weight each, got {top.size} and {bottom.size}")
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // top.size)
    statistics = [_resample(top, bottom, generator, min(block, n - done)) for done in range(0, n, block)]
    low, high = np.percentile(np.concatenate(statistics), (2.5, 97.5))
    return float(low), float(high)


def _resample(
    top: NDArray[np.float64], bottom: NDArray[np.float64], generator: np.random.Generator, rows: int
) -> NDArray[np.float64]:
    drawn = generator.integers(top.size, size=(rows, top.size))
    return sample_ious(top[drawn].sum(axis=1), bottom[drawn].sum(axis=1))
