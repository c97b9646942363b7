"""Run lengths of masks equal those of COCO's own tools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from wise_edge.errors import UsageError
from wise_edge.rle import compressed_runs, mask_of_runs, run_lengths, run_lengths_of_part
from wise_edge.scenes import sample

small_masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))
wide_masks = st.integers(1, 4).flatmap(lambda height: arrays(np.bool_, (height, 3000), fill=st.just(False)))


def test_runs_go_down_the_columns_and_begin_with_the_background() -> None:
    mask = np.array([[1, 0], [1, 1]], bool)
    assert run_lengths(mask) == [0, 2, 1, 1]
    assert run_lengths(~mask) == [2, 1, 1]


@given(st.one_of(small_masks, wide_masks))
def test_compressed_runs_are_those_of_coco(mask: NDArray[np.bool_]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))
    assert compressed_runs(mask) == {"size": theirs["size"], "counts": theirs["counts"].decode()}


@given(small_masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_runs_of_a_part_are_those_of_the_mask(part: NDArray[np.bool_], margins: tuple[int, ...]) -> None:
    top, bottom, left, right = margins
    mask = np.pad(part, ((top, bottom), (left, right)))
    assert run_lengths_of_part(part, (left, top), mask.shape).tolist() == run_lengths(mask)


@given(small_masks)
def test_a_mask_is_read_from_its_runs(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(mask_of_runs(compressed_runs(mask)), mask)


@pytest.mark.parametrize("counts", ["1\n", "p", "oooooooo0", "é"])
def test_damaged_runs_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="compressed run lengths are"):
        mask_of_runs({"size": [2, 2], "counts": counts})


@pytest.mark.parametrize("size", [[0, 0], [10**6, 10**6], [20_000, 1000]])
def test_runs_of_what_is_no_image_are_refused_before_memory_is_taken(size: list[int]) -> None:
    counts = compressed_runs(np.zeros((1, 1), np.bool_))["counts"]
    with pytest.raises(UsageError, match="a mask has"):
        mask_of_runs({"size": size, "counts": counts})


def test_a_compressed_scene_is_small() -> None:
    mask = sample("test", 0).mask
    assert len(compressed_runs(mask)["counts"]) < 1000
    assert compressed_runs(np.zeros((3, 4), bool)) == {"size": [3, 4], "counts": "<"}
