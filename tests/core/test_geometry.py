"""Boxes stay valid wherever they are mapped; distances are exact; interior points lie inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from wise_edge.geometry import (
    Box,
    Point,
    Size,
    box_iou,
    clip_box,
    clip_point,
    distance_transform,
    interior_points,
    mask_box,
    scale_box,
    scale_point,
)

sides = st.integers(1, 4000)
sizes = st.tuples(sides, sides)
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=14))
any_boxes = st.tuples(*[st.integers(-10_000, 10_000)] * 4)


@st.composite
def frames_with_boxes(draw: st.DrawFn) -> tuple[Size, Box]:
    width, height = draw(sizes)
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (width, height), (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))


def assert_valid(box: Box, size: Size) -> None:
    x1, y1, x2, y2 = box
    assert 0 <= x1 < x2 <= size[0]
    assert 0 <= y1 < y2 <= size[1]


def brute_distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    padded = np.pad(mask, 1)
    everywhere, background = np.argwhere(padded | True), np.argwhere(~padded)
    squared = ((everywhere[:, None] - background[None]) ** 2).sum(axis=2).min(axis=1)
    return np.sqrt(squared).reshape(padded.shape)[1:-1, 1:-1]


def pixels(box: Box) -> set[Point]:
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


small_boxes = st.tuples(*[st.integers(0, 9)] * 4)


@given(small_boxes, small_boxes)
def test_box_iou_counts_pixels(a: Box, b: Box) -> None:
    union = pixels(a) | pixels(b)
    expected = len(pixels(a) & pixels(b)) / len(union) if pixels(a) and pixels(b) else 0.0
    assert box_iou(a, b) == pytest.approx(expected)
    assert box_iou(a, b) == box_iou(b, a)


@given(any_boxes, sizes, sizes)
def test_scaled_boxes_are_valid_whatever_comes_in(box: Box, source: Size, target: Size) -> None:
    assert_valid(scale_box(box, source, target), target)


@given(frames_with_boxes(), st.integers(0, 4000), st.integers(0, 4000))
def test_boxes_survive_a_larger_frame_and_back(framed: tuple[Size, Box], wider: int, higher: int) -> None:
    size, box = framed
    larger = size[0] + wider, size[1] + higher
    assert scale_box(scale_box(box, size, larger), larger, size) == box


@given(frames_with_boxes(), st.integers(1, 4000))
def test_boxes_survive_the_resized_square_within_two_pixels_of_it(framed: tuple[Size, Box], side: int) -> None:
    size, box = framed
    back = scale_box(scale_box(box, size, (side, side)), (side, side), size)
    for index, (value, original) in enumerate(zip(back, box, strict=True)):
        # Half a pixel by rounding, one more where the box would vanish.
        assert abs(value - original) <= 1.5 * size[index % 2] / side + 0.5


@given(sizes, st.integers(0, 4000), st.integers(0, 4000), st.data())
def test_points_survive_a_larger_frame_and_back(size: Size, wider: int, higher: int, data: st.DataObject) -> None:
    point = data.draw(st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1)))
    larger = size[0] + wider, size[1] + higher
    assert scale_point(scale_point(point, size, larger), larger, size) == point


@given(st.tuples(st.integers(-9999, 9999), st.integers(-9999, 9999)), sizes, sizes)
def test_scaled_points_stay_inside(point: Point, source: Size, target: Size) -> None:
    x, y = scale_point(point, source, target)
    assert 0 <= x < target[0] and 0 <= y < target[1]


@given(frames_with_boxes(), sizes)
def test_the_whole_frame_maps_to_the_whole_frame(framed: tuple[Size, Box], target: Size) -> None:
    size, box = framed
    assert scale_box((0, 0, *size), size, target) == (0, 0, *target)
    assert scale_box(box, size, size) == box


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((2, 3, 5, 6), (2, 3, 5, 6)),
        ((-4, -4, 50, 50), (0, 0, 10, 8)),
        ((3, 3, 3, 3), (3, 3, 4, 4)),
        ((7, 6, 2, 1), (7, 6, 8, 7)),
        ((20, 20, 30, 30), (9, 7, 10, 8)),
        ((-9, -9, -5, -5), (0, 0, 1, 1)),
    ],
)
def test_clipping_degenerate_boxes(box: Box, clipped: Box) -> None:
    assert clip_box(box, (10, 8)) == clipped


def test_clipping_points() -> None:
    assert clip_point((-3, 99), (10, 8)) == (0, 7)
    assert clip_point((4, 5), (10, 8)) == (4, 5)


@pytest.mark.parametrize("find", [mask_box, interior_points])
@pytest.mark.parametrize("shape", [(1, 1), (3, 14)])
def test_an_empty_mask_has_neither_box_nor_points(
    find: Callable[[NDArray[np.bool_]], object], shape: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="empty mask"):
        find(np.zeros(shape, bool))


@given(masks)
def test_mask_box_is_the_tight_half_open_box(mask: NDArray[np.bool_]) -> None:
    assume(mask.any())
    rows, columns = np.nonzero(mask)
    assert mask_box(mask) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@given(masks)
def test_distances_are_exact(mask: NDArray[np.bool_]) -> None:
    distances = distance_transform(mask)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, brute_distances(mask), rtol=1e-6)


def test_distances_are_exact_on_a_large_sparse_background() -> None:
    mask = np.ones((60, 70), bool)
    mask[np.random.default_rng(0).integers(60, size=6), np.random.default_rng(1).integers(70, size=6)] = False
    np.testing.assert_allclose(distance_transform(mask), brute_distances(mask), rtol=1e-6)


def test_distances_beyond_sixteen_bits() -> None:
    distances = distance_transform(np.ones((500, 900), bool))
    assert distances.max() == 250
    assert distances[249, 450] == 250 and distances[0, 0] == 1


@given(masks)
def test_interior_points_are_centers_of_the_largest_circles(mask: NDArray[np.bool_]) -> None:
    assume(mask.any())
    (x1, y1), (x2, y2) = interior_points(mask)
    assert mask[y1, x1] and mask[y2, x2]
    distances = brute_distances(mask)
    radius = distances[y1, x1]
    assert radius == distances.max()
    rows, columns = np.indices(mask.shape)
    rest = mask & ((rows - y1) ** 2 + (columns - x1) ** 2 >= round(radius**2))
    second = brute_distances(rest) if rest.any() else np.zeros(mask.shape)
    if 16 * round(second.max() ** 2) >= round(radius**2):
        assert rest[y2, x2] and second[y2, x2] == second.max()
    else:
        assert (x2, y2) == (x1, y1)


def test_interior_points_of_two_squares_are_their_centers() -> None:
    mask = np.zeros((40, 60), bool)
    mask[3:18, 5:20] = True
    mask[22:33, 40:51] = True
    assert interior_points(mask) == ((12, 10), (45, 27))


def test_a_disc_has_one_interior_point() -> None:
    rows, columns = np.indices((224, 224))
    disc = (columns - 100) ** 2 + (rows - 90) ** 2 < 40**2
    assert interior_points(disc) == ((100, 90), (100, 90))
