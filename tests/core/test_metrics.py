"""IoU, gIoU and cIoU follow their definitions, empty masks included; intervals cover and are repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wise_edge.metrics import (
    METRIC_MODES,
    Overlap,
    bootstrap_interval,
    boxes_iou,
    giou_ciou,
    mask_iou,
    mask_overlap,
    measure_overlap,
    paired_bootstrap,
    ratio,
    sample_ious,
)

masks = arrays(np.bool_, (5, 7))
EMPTY = np.zeros((5, 7), bool)
FULL = np.ones((5, 7), bool)
counts = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=30)


@given(masks, masks)
def test_overlap_counts_pixels(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    expected = sum(x and y for x, y in pairs), sum(x or y for x, y in pairs)
    assert mask_overlap(a, b) == expected
    assert mask_iou(a, b) == mask_iou(b, a) == (expected[0] / expected[1] if expected[1] else 1.0)


def test_empty_masks() -> None:
    assert mask_iou(EMPTY, EMPTY) == 1.0
    assert mask_iou(EMPTY, FULL) == mask_iou(FULL, EMPTY) == 0.0
    assert giou_ciou([0, 5], [0, 10]) == (0.75, 0.5)
    assert giou_ciou([0, 0], [0, 0]) == (1.0, 1.0)


def test_masks_of_different_sizes_are_rejected() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        mask_iou(EMPTY, np.zeros((7, 5), bool))


def test_giou_weighs_samples_and_ciou_pixels() -> None:
    assert giou_ciou([1, 90], [2, 100]) == (pytest.approx(0.7), pytest.approx(91 / 102))
    with pytest.raises(ValueError, match="no sample"):
        giou_ciou([], [])


@given(counts)
def test_fractions_stay_fractions(pairs: list[tuple[int, int]]) -> None:
    intersections, unions = [min(pair) for pair in pairs], [max(pair) for pair in pairs]
    giou, ciou = giou_ciou(intersections, unions)
    ious = sample_ious(intersections, unions)
    assert ious.min() - 1e-12 <= giou <= ious.max() + 1e-12
    assert 0.0 <= ciou <= 1.0
    low, high = bootstrap_interval(intersections, unions, n=50)
    assert 0.0 <= low <= high <= 1.0


def test_intervals_of_a_constant_have_no_width() -> None:
    assert bootstrap_interval([0.25] * 9) == (0.25, 0.25)
    assert bootstrap_interval([3, 6, 9], [4, 8, 12]) == (0.75, 0.75)
    assert bootstrap_interval([0, 0], [0, 0]) == (1.0, 1.0)


def test_intervals_are_repeatable_and_follow_the_seed() -> None:
    values = np.random.default_rng(3).random(200)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_the_interval_of_a_mean_is_that_of_a_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    low, high = bootstrap_interval(values, n=4000)
    spread = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == (
        pytest.approx(values.mean() - spread, abs=0.03),
        pytest.approx(values.mean() + spread, abs=0.03),
    )


def test_ratios_are_resampled_by_sample_and_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        unions = generator.integers(100, 1000, 80)
        intersections = unions * generator.random(80)
        low, high = bootstrap_interval(intersections, unions, n=300)
        hits += low <= 0.5 <= high
    assert 88 <= hits <= 100


def test_large_sets_are_resampled_in_blocks() -> None:
    values = np.arange(300_000) % 2
    low, high = bootstrap_interval(values, n=15)
    assert 0.49 < low <= high < 0.51


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0], [1.0, 2.0])])
def test_intervals_need_matching_samples(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="one weight each"):
        bootstrap_interval(values, weights)


# One row of seven pixels: the prediction covers 0 to 3, the truth 2 to 4, what is ignored 1 and 5.
PREDICTION = np.array([[1, 1, 1, 1, 0, 0, 0]], bool)
TRUTH = np.array([[0, 0, 1, 1, 1, 0, 0]], bool)
IGNORE = np.array([[0, 1, 0, 0, 0, 1, 0]], bool)
NOTHING = np.zeros_like(TRUTH)
SMALL = np.ones((1, 3), bool)


@pytest.mark.parametrize(
    ("mode", "prediction", "truth", "ignore", "expected"),
    [
        ("lisa", PREDICTION, TRUTH, None, Overlap(2, 5, 0.4)),
        ("paper", PREDICTION, TRUTH, None, Overlap(2, 5, 0.4)),
        ("lisa", PREDICTION, TRUTH, IGNORE, Overlap(2, 4, 0.5)),  # 1 and 5 belong to neither
        ("paper", PREDICTION, TRUTH, IGNORE, Overlap(3, 6, 0.5)),  # 1 and 5 belong to the truth
        ("lisa", None, TRUTH, IGNORE, Overlap(0, 3, 0.0)),
        ("paper", None, TRUTH, IGNORE, Overlap(0, 5, 0.0)),
        ("lisa", NOTHING, NOTHING, None, Overlap(0, 0, 1.0)),  # both are empty
        ("paper", NOTHING, NOTHING, None, Overlap(0, 0, 0.0, "mask and truth are both empty")),
        ("lisa", None, NOTHING, None, Overlap(0, 0, 1.0)),
        ("paper", None, NOTHING, None, Overlap(0, 0, 0.0)),  # an unreadable answer is never dropped
        ("lisa", PREDICTION, NOTHING, None, Overlap(0, 4, 0.0)),
        ("paper", PREDICTION, NOTHING, None, Overlap(0, 4, 0.0)),
        ("lisa", IGNORE, NOTHING, IGNORE, Overlap(0, 0, 1.0)),
        ("lisa", SMALL, TRUTH, None, Overlap(0, 3, 0.0)),
        ("paper", SMALL, TRUTH, None, Overlap(0, 0, 0.0, "the mask is (1, 3) and the truth (1, 7)")),
        ("gres", PREDICTION, TRUTH, None, measure_overlap(PREDICTION, TRUTH, None, "lisa")),
        ("gres", NOTHING, NOTHING, None, Overlap(0, 0, 1.0)),  # says that there is no target, rightly
        ("gres", None, NOTHING, None, Overlap(0, 0, 0.0)),  # says nothing
        ("gres", PREDICTION, NOTHING, None, Overlap(0, 4, 0.0)),
        ("gres", NOTHING, TRUTH, None, Overlap(0, 3, 0.0)),
        ("gres", None, TRUTH, None, Overlap(0, 3, 0.0)),
        ("gres", SMALL, TRUTH, None, Overlap(0, 3, 0.0)),
    ],
)
def test_the_overlap_of_a_sample_in_each_mode(
    mode: str,
    prediction: NDArray[np.bool_] | None,
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None,
    expected: Overlap,
) -> None:
    assert measure_overlap(prediction, truth, ignore, mode) == expected


@given(masks, masks)
def test_without_ignored_regions_the_modes_agree(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    found = [measure_overlap(a, b, None, mode) for mode in METRIC_MODES]
    assert (found[0] == found[1]) == bool((a | b).any())
    assert found[0].iou == mask_iou(a, b)


def test_boxes_are_paired_whatever_their_order() -> None:
    left, right, off = (0, 0, 10, 10), (20, 0, 30, 10), (20, 0, 30, 8)
    assert boxes_iou([], []) == 1.0
    assert boxes_iou([left], []) == boxes_iou([], [left]) == boxes_iou([left, right], [left]) == 0.0
    assert boxes_iou([left], [left]) == boxes_iou([right, left], [left, right]) == 1.0
    assert boxes_iou([off, left], [left, right]) == 0.8, "the lowest of the pairs"
    assert boxes_iou([left, left], [left, right]) == 0.0, "each true box has one pair"
    assert boxes_iou([(0, 0, 10, 9), (0, 0, 10, 10)], [(0, 0, 10, 10), (0, 0, 10, 9)]) == 1.0, "the closest first"


def test_a_ratio_of_nothing_is_one() -> None:
    assert ratio([1, 2], [4, 8]) == 0.25
    assert ratio([0], [0]) == 1.0


def test_pairs_are_compared_sample_by_sample() -> None:
    generator = np.random.default_rng(5)
    hard = generator.random(300)  # what makes a sample hard for both is far larger than the difference
    better = hard + 0.02 + 0.01 * generator.standard_normal(300)
    low, high = paired_bootstrap(hard, better)
    assert 0.015 < low < 0.02 < high < 0.025
    assert paired_bootstrap(better, hard) == (-high, -low)
    assert paired_bootstrap(hard, hard) == (0.0, 0.0)
    with pytest.raises(ValueError, match="300 and 2"):
        paired_bootstrap(hard, [1.0, 2.0])


def test_pairs_of_ratios_are_ratios_of_sums() -> None:
    unions = np.random.default_rng(1).integers(100, 1000, 50)
    assert paired_bootstrap(0.5 * unions, 0.75 * unions, unions, unions) == (0.25, 0.25)
    # Of one large and many small samples, the ratio follows the large one and the mean the small ones.
    tops, bottoms = np.array([900.0, *[1.0] * 9]), np.array([1000.0, *[10.0] * 9])
    low, high = paired_bootstrap(tops, tops[::-1], bottoms, bottoms[::-1])
    assert low <= 0.0 <= high


def test_the_interval_of_a_difference_is_that_of_a_normal_distribution() -> None:
    a, b = np.random.default_rng(2).normal((10.0, 11.0), (2.0, 2.0), (400, 2)).T
    low, high = paired_bootstrap(a, b, n=4000)
    spread = 1.96 * (b - a).std() / np.sqrt(400)
    assert (low, high) == (
        pytest.approx((b - a).mean() - spread, abs=0.03),
        pytest.approx((b - a).mean() + spread, abs=0.03),
    )
