"""An overlay in the image's own size and colors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wise_edge.drawing.overlay import COLORS, DrawnObject
from wise_edge.drawing.plain import draw_plain, free_colors, line_px

GRAY = np.full((120, 200, 3), 128, np.uint8)


def block(left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    mask = np.zeros(GRAY.shape[:2], np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def lined(pixel: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    """Whether a pixel has the color of a line, of which the dark rim beside it has smoothed a little away."""
    return bool(np.abs(pixel.astype(int) - color).max() < 40)


def test_an_object_is_lined_and_lightly_tinted_and_nothing_else_changes() -> None:
    mask, before = block(60, 40, 100, 80), GRAY.copy()
    drawn = draw_plain(GRAY, [DrawnObject(mask)])
    np.testing.assert_array_equal(GRAY, before)
    assert (drawn.shape, drawn.dtype) == (GRAY.shape, np.uint8)
    np.testing.assert_allclose(drawn[60, 80], 128 * 0.9 + np.array(COLORS[0]) * 0.1, atol=2)
    assert lined(drawn[60, 58], COLORS[0])  # the line is outside of the mask
    assert max(drawn[60, 59].max(), drawn[60, 56].max()) < 128  # and has a dark rim on both sides
    changed = (drawn != GRAY).any(axis=2)
    assert not (changed & ~block(54, 34, 106, 86)).any()


@pytest.mark.parametrize("color", COLORS)
def test_an_object_of_the_color_of_its_line_is_told_from_it(color: tuple[int, int, int]) -> None:
    image, mask = np.full((120, 200, 3), color, np.uint8), block(60, 40, 100, 80)
    drawn = draw_plain(image, [DrawnObject(mask, number=1 + COLORS.index(color))]).astype(int)
    assert all(lined(drawn[y, x], color) for y, x in ((60, 62), (60, 58), (60, 50)))
    for y, x in ((60, 59), (60, 56), (39, 80), (80, 80)):
        assert drawn[y, x].sum() < drawn[60, 58].sum() / 2


def test_the_picture_shows_through() -> None:
    image = np.random.default_rng(0).integers(0, 256, GRAY.shape, dtype=np.uint8)
    inside = draw_plain(image, [DrawnObject(block(10, 10, 190, 110))])[20:100, 20:180].astype(int)
    expected = image[20:100, 20:180] * 0.9 + np.array(COLORS[0]) * 0.1
    np.testing.assert_allclose(inside, expected, atol=2)


@pytest.mark.parametrize(
    "color", ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "gray"]
)
def test_no_color_that_is_asked_for_is_used(color: str) -> None:
    free = free_colors(f"the {color.upper()} ring, or the {color}ish one")
    assert 0 < len(free) < len(COLORS)
    assert free == free_colors(f"the {color}ish one")
    drawn = draw_plain(GRAY, [DrawnObject(block(60, 40, 100, 80))], f"the {color} ring")
    assert lined(drawn[60, 58], free[0])


def test_words_that_hold_a_color_name_none() -> None:
    assert free_colors("the bored goldsmith's blueberry") == COLORS
    assert free_colors("blue, amber, pink, lime, violet, orange and white ones") == COLORS


def test_colors_go_by_number_so_that_a_followed_object_keeps_its_own() -> None:
    both = [DrawnObject(block(20, 40, 60, 80), number=2), DrawnObject(block(120, 40, 160, 80), number=3)]
    drawn, alone = draw_plain(GRAY, both), draw_plain(GRAY, both[1:])
    assert lined(drawn[60, 18], COLORS[1])
    assert lined(drawn[60, 118], COLORS[2])
    assert lined(alone[60, 118], COLORS[2])


def test_the_line_of_an_object_is_drawn_on_one_that_covers_it() -> None:
    drawn = draw_plain(GRAY, [DrawnObject(block(40, 30, 100, 90)), DrawnObject(block(60, 10, 120, 110))])
    assert lined(drawn[60, 101], COLORS[0])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (32, 32), (1080, 1920)])
def test_the_smallest_object_on_any_picture_is_seen(size: tuple[int, int]) -> None:
    image, mask = np.full((*size, 3), 128, np.uint8), np.zeros(size, np.bool_)
    mask[-1, -1] = True
    drawn = draw_plain(image, [DrawnObject(mask, (size[1] - 1, size[0] - 1, size[1], size[0]), ((0, 0),), "cup")])
    assert (drawn.shape, (drawn != image).any()) == (image.shape, True)


def test_the_line_grows_with_the_picture() -> None:
    assert [line_px(*size) for size in ((32, 20), (640, 480), (1920, 1080), (480, 3840))] == [2, 2, 4, 8]


@pytest.mark.parametrize("item", [DrawnObject(), DrawnObject(np.zeros((120, 200), np.bool_), label="cup")])
def test_what_an_object_lacks_is_not_drawn(item: DrawnObject) -> None:
    np.testing.assert_array_equal(draw_plain(GRAY, [item]), GRAY)


def test_boxes_points_and_labels_are_drawn_if_they_are_given() -> None:
    mask, box, points = block(60, 40, 100, 80), (50, 30, 110, 90), ((80, 60),)
    plain = draw_plain(GRAY, [DrawnObject(mask)])
    for item, (y, x) in (
        (DrawnObject(mask, box), (60, 49)),
        (DrawnObject(mask, None, points), (60, 80)),
    ):
        drawn = draw_plain(GRAY, [item])
        assert lined(drawn[y, x], COLORS[0])
        assert not lined(plain[y, x], COLORS[0])
    named, numbered = (DrawnObject(mask, label=label) for label in ("cup", ""))
    np.testing.assert_array_equal(draw_plain(GRAY, [numbered]), plain)  # of one object, there is no number to write
    assert (draw_plain(GRAY, [named])[:40] != plain[:40]).any()
    assert (draw_plain(GRAY, [numbered, DrawnObject()])[:40] != plain[:40]).any()
