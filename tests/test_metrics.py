"""IoU, gIoU and cIoU follow their definitions, empty masks included; intervals cover and are repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wise_edge.metrics import bootstrap_interval, giou_ciou, mask_iou, mask_overlap, sample_ious

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


def test_masks_of_two_sizes_are_refused() -> None:
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


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
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
