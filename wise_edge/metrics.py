"""Agreement of masks and boxes with the ground truth, and confidence intervals.

gIoU is the mean of the samples' IoUs; cIoU is the summed intersection over the summed union, so large objects weigh
more. If prediction and truth are both empty, the IoU is 1 and the sample adds nothing to the sums of cIoU; if only one
of them is empty, the IoU is 0 and the other's area is the union. Intervals are percentile bootstraps over samples.

There are three conventions for what a sample counts (`METRIC_MODES`):

- "lisa" (https://github.com/dvlab-research/LISA): ignored regions belong neither to the prediction nor to the truth,
  and every readable sample counts. A prediction that is missing, or whose size differs from the truth, is empty.
- "paper" (https://github.com/mrazhou/WISE, as its figures were computed): ignored regions belong to the truth. A
  missing prediction has intersection 0, the truth's area as union and IoU 0, even if that area is 0. If the sizes of
  prediction and truth differ, or both are empty, no figure includes the sample.
- "gres" (https://github.com/henghuiding/ReLA, whose code computes gRefCOCO's figures): as "lisa", but a missing
  prediction is never right, even if the truth is empty, since it does not say that there is no target. If there is one
  and the prediction is empty, the IoU is 0 and the truth's area is the union.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wise_edge.geometry import Box, box_iou

METRIC_MODES = ("lisa", "paper", "gres")
METRIC_MODES_BY_NAME = dict.fromkeys(("grefcoco", "scenes-generalized", "coco", "table"), "gres")
"""Data set to its metric mode, if that is not "lisa"."""
RESAMPLES = 1000
# Resampled indices are drawn in blocks of about this many numbers, which bounds the memory for any data set.
_BLOCK_NUMBERS = 2_000_000


def mask_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """Intersection and union of two masks.

    Args:
        a: bool, H x W.
        b: bool, H x W.

    Returns:
        The areas of intersection and union in pixels.

    Raises:
        ValueError: the masks differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"masks differ in size: {a.shape} and {b.shape}")
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks.

    Args:
        a: bool, H x W.
        b: bool, H x W.

    Returns:
        A fraction from 0 to 1; 1 if both masks are empty.

    Raises:
        ValueError: the masks differ in size.
    """
    intersection, union = mask_overlap(a, b)
    return intersection / union if union else 1.0


@dataclass(frozen=True)
class Overlap:
    """The contribution of one sample's masks to the figures.

    Attributes:
        intersection_px: area of the intersection of prediction and truth, pixels.
        union_px: area of their union, pixels.
        iou: the sample's IoU, a fraction from 0 to 1.
        dropped: why no figure includes the sample; None if the figures include it.
    """

    intersection_px: int
    union_px: int
    iou: float
    dropped: str | None = None


def measure_overlap(
    prediction: NDArray[np.bool_] | None, truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None, mode: str
) -> Overlap:
    """Compare a predicted mask with the truth.

    Args:
        prediction: bool, H x W; None if it is missing.
        truth: bool, H x W, without ignored regions.
        ignore: bool, H x W, regions that are neither target nor background; None for none.
        mode: one of `METRIC_MODES`; see the module's docstring.
    """
    if mode == "paper":
        return _paper_overlap(prediction, truth if ignore is None else truth | ignore)
    missing = prediction is None or prediction.shape != truth.shape
    if prediction is None or missing:
        prediction = np.zeros_like(truth)
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    intersection, union = mask_overlap(prediction, truth)
    return Overlap(intersection, union, 0.0 if missing and mode == "gres" else ratio(intersection, union))


def _paper_overlap(prediction: NDArray[np.bool_] | None, truth: NDArray[np.bool_]) -> Overlap:
    if prediction is None:
        return Overlap(0, int(np.count_nonzero(truth)), 0.0)
    if prediction.shape != truth.shape:
        return Overlap(0, 0, 0.0, f"the mask is {prediction.shape} and the truth {truth.shape}")
    intersection, union = mask_overlap(prediction, truth)
    if union == 0:
        return Overlap(0, 0, 0.0, "mask and truth are both empty")
    return Overlap(intersection, union, intersection / union)


def boxes_iou(found: Sequence[Box], truth: Sequence[Box]) -> float:
    """Return the lowest IoU of the pairs of found and true boxes; above 0.5, every box is right and none is missing.

    Boxes are paired by decreasing IoU, as gRefCOCO's code pairs them.

    Args:
        found: XYXY, half-open, pixels of any frame, in any order.
        truth: XYXY, half-open, pixels of the same frame, in any order.

    Returns:
        A fraction from 0 to 1; 0 if the numbers of boxes differ, 1 if there are none.
    """
    if len(found) != len(truth):
        return 0.0
    overlaps = np.array([[box_iou(a, b) for b in truth] for a in found], np.float64)
    lowest = 1.0
    for _ in found:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        lowest = min(lowest, float(overlaps[row, column]))
        overlaps[row] = overlaps[:, column] = -1.0
    return lowest


def sample_ious(intersections: ArrayLike, unions: ArrayLike) -> NDArray[np.float64]:
    """IoU of each sample.

    Args:
        intersections: pixels, one number per sample.
        unions: pixels, one number per sample; 0 if prediction and truth are both empty.

    Returns:
        float64 [samples], fractions from 0 to 1; 1 where the union is 0.
    """
    inner, outer = np.asarray(intersections, np.float64), np.asarray(unions, np.float64)
    return np.divide(inner, outer, out=np.ones_like(outer), where=outer > 0)


def giou_ciou(intersections: ArrayLike, unions: ArrayLike) -> tuple[float, float]:
    """Return gIoU and cIoU over samples.

    Args:
        intersections: pixels, one number per sample, at least one sample.
        unions: pixels, one number per sample.

    Returns:
        Two fractions from 0 to 1. cIoU is 1 if every union is 0.

    Raises:
        ValueError: there is no sample.
    """
    ious = sample_ious(intersections, unions)
    if ious.size == 0:
        raise ValueError("there is no sample to average")
    return float(ious.mean()), ratio(intersections, unions)


def ratio(values: ArrayLike, weights: ArrayLike) -> float:
    """Return the sum of the values divided by the sum of the weights; 1 if the weights sum to 0."""
    return float(sample_ious(np.sum(values), np.sum(weights)))


def bootstrap_interval(
    values: ArrayLike, weights: ArrayLike | None = None, n: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a mean, or of a ratio of sums, over samples resampled with replacement.

    Args:
        values: one number per sample, at least one: the values to average, or the numerators of a ratio
            (intersections).
        weights: None for a mean; for a ratio, the denominators (unions), resampled together with `values`.
        n: number of resamples.
        seed: seed of the generator; the same seed yields the same interval.

    Returns:
        The 2.5th and 97.5th percentile, in the unit of the mean or ratio; both 1 if every denominator is 0. A resample
        whose denominators are all 0 counts as 1, as in `giou_ciou`.

    Raises:
        ValueError: there is no sample, or the two lengths differ.
    """
    terms = _terms(values, weights)
    return _middle([_ratios(terms, drawn) for drawn in _draws(terms.shape[1], n, seed)])


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    a_weights: ArrayLike | None = None,
    b_weights: ArrayLike | None = None,
    n: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of two runs on the same samples: b's mean or ratio minus a's.

    Each resample draws the same samples for both runs, so the difficulty of a sample, which both share, does not widen
    the interval.

    Args:
        a: one number per sample, at least one: the values to average, or the numerators of a ratio (intersections).
        b: the same for the other run, in the same order of samples.
        a_weights: None for a mean; for a ratio, the denominators (unions).
        b_weights: the same for `b`.
        n: number of resamples.
        seed: seed of the generator; the same seed yields the same interval.

    Returns:
        The 2.5th and 97.5th percentile of the difference, in the unit of the mean or ratio.

    Raises:
        ValueError: there is no sample, or the lengths differ.
    """
    first, second = _terms(a, a_weights), _terms(b, b_weights)
    if first.shape != second.shape:
        raise ValueError(f"need two runs on the same samples, got {first.shape[1]} and {second.shape[1]}")
    return _middle([_ratios(second, drawn) - _ratios(first, drawn) for drawn in _draws(first.shape[1], n, seed)])


def _terms(values: ArrayLike, weights: ArrayLike | None) -> NDArray[np.float64]:
    """Stack numerators and denominators to [2, N]; the denominators of a mean are 1."""
    top = np.asarray(values, np.float64).ravel()
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, np.float64).ravel()
    if top.size == 0 or top.size != bottom.size:
        raise ValueError(f"need one or more samples with one weight each, got {top.size} and {bottom.size}")
    return np.stack([top, bottom])


def _draws(samples: int, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield `n` rows of sample indices drawn with replacement, in blocks of rows."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // samples)
    for done in range(0, n, block):
        yield generator.integers(samples, size=(min(block, n - done), samples))


def _ratios(terms: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    top, bottom = terms
    return sample_ious(top[drawn].sum(axis=1), bottom[drawn].sum(axis=1))


def _middle(statistics: list[NDArray[np.float64]]) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate(statistics), (2.5, 97.5))
    return float(low), float(high)
