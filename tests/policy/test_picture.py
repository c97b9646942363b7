"""How pictures are resized for a policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from wise_edge.arguments import MAX_ASPECT
from wise_edge.errors import UsageError
from wise_edge.policy.picture import ASPECT, PictureGeometry, fit_pixels

UNITS = st.sampled_from([28, 32])
SIDES = st.integers(1, 16_384)
BUDGETS = st.tuples(st.integers(1, 2_000_000), st.integers(1, 2_000_000)).map(sorted)


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Sizes of the pictures that are read: no side is more than `MAX_ASPECT` times the other."""
    return st.tuples(SIDES, SIDES).filter(lambda size: max(size) <= MAX_ASPECT * min(size))


@given(sizes(), UNITS, BUDGETS)
def test_the_size_is_that_of_transformers(size: tuple[int, int], unit: int, budget: list[int]) -> None:
    least, most = budget
    height, width = smart_resize(size[1], size[0], unit, least, most)
    assert fit_pixels(size, unit, least, most) == (width, height)


@given(sizes(), UNITS, BUDGETS)
def test_no_picture_has_more_tokens_than_are_reserved(size: tuple[int, int], unit: int, budget: list[int]) -> None:
    geometry = PictureGeometry(ASPECT, None, *budget)
    width, height = geometry.size(size, unit)
    assert width % unit == height % unit == 0 and width and height
    assert width * height // unit**2 <= geometry.most_tokens(unit)


def test_a_usual_budget_reserves_no_more_than_it_holds() -> None:
    assert PictureGeometry(ASPECT, None, 3136, 840 * 840).most_tokens(28) == 900
    assert PictureGeometry(ASPECT, None, 65_536, 840 * 840).most_tokens(32) == 689


KNOWN = PictureGeometry(ASPECT, None, 3136, 840 * 840, ((30, 30), (34, 25), (40, 22), (22, 40), (15, 15)))


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((640, 480), (34, 25)),
        ((1920, 1080), (40, 22)),
        ((1080, 1920), (22, 40)),
        ((500, 500), (30, 30)),  # not 15 x 15, which is as near
        ((1, 1), (30, 30)),
        ((12_800, 100), (40, 22)),
        ((100, 12_800), (22, 40)),
        ((640, 512), (34, 25)),
    ],
)
def test_of_fixed_grids_the_nearest_in_aspect_is_taken(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert KNOWN.size(size, 28) == (28 * grid[0], 28 * grid[1])


def test_the_usual_grids_are_what_the_budget_makes_of_usual_pictures() -> None:
    usual = PictureGeometry(ASPECT, None, 3136, 840 * 840).usual_grids(28)
    assert usual == ((30, 30), (34, 25), (25, 34), (40, 22), (22, 40))
    for columns, rows in usual:
        assert columns * rows <= 900
    one = PictureGeometry(ASPECT, None, 1, 28 * 28).usual_grids(28)
    assert one == ((1, 1),)


def test_a_budget_keeps_the_grids_that_it_holds() -> None:
    assert KNOWN.with_budget(28 * 28 * 880, 28).grids == ((34, 25), (40, 22), (22, 40), (15, 15))
    assert KNOWN.with_budget(28 * 28 * 500, 28).size((1920, 1080), 28) == (15 * 28, 15 * 28)
    with pytest.raises(
        UsageError, match=r"1000 pixels hold none of the grids that the graphs have, 30x30, 34x25, 40x22"
    ):
        KNOWN.with_budget(1000, 28)


def test_geometries_say_what_they_do() -> None:
    assert str(PictureGeometry.square(840)) == "images stretched to 840 x 840 px"
    assert str(PictureGeometry(ASPECT, None, 3136, 705_600)) == "images of 3,136 to 705,600 px that keep their aspect"
    assert str(KNOWN).startswith("images of 30x30, 34x25, 40x22, 22x40, 15x15 tokens, whichever is nearest in aspect")


@pytest.mark.parametrize("known", [PictureGeometry.square(840), KNOWN])
def test_a_budget_beyond_any_picture_is_refused(known: PictureGeometry) -> None:
    for pixels in (4096**2 + 1, 10**30):
        with pytest.raises(UsageError, match=f"{pixels} pixels are too many; allow at most 16777216"):
            known.with_budget(pixels, 28)
