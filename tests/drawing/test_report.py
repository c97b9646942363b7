from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from wise_edge.drawing import typography
from wise_edge.drawing.overlay import (
    BOX_COLOR,
    COLORS,
    CONTOUR,
    LARGEST_PX,
    POINT_COLOR,
    READABLE_PX,
    DrawnObject,
    draw_overlay,
    fitted_size,
)
from wise_edge.drawing.panel import BRIGHT, Caption, bar_block, legend_block, phases, text_block
from wise_edge.drawing.report import CARD_WIDTH, Cell, Drawing, contact_sheet, overlay_card
from wise_edge.drawing.typography import font_for, missing_letters, wrap
from wise_edge.drawing.units import milliseconds

LATENCY_MS = {"preprocess": 2.0, "prefill": 30.0, "decode": 300.0, "mask_encode": 0.0, "total": 340.0}
CAPTION = Caption("the red ring", "wise-s", "The red ring is at the left.", 9, 49, LATENCY_MS)
GRAY = np.full((50, 100, 3), 120, np.uint8)


def _mask() -> np.ndarray:
    mask = np.zeros((50, 100), np.bool_)
    mask[10:40, 20:60] = True
    return mask


def _has(drawn: np.ndarray, color: tuple[int, int, int]) -> bool:
    return _filled(drawn, color) > 0


def _filled(drawn: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(drawn.astype(int) - color).max(axis=-1) < 24).sum())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (READABLE_PX, READABLE_PX)),
        ((224, 112), (READABLE_PX, READABLE_PX // 2)),
        ((1000, 800), (1000, 800)),
        ((32_000, 1), (LARGEST_PX, 1)),
    ],
)
def test_images_are_drawn_at_a_readable_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted_size(*size) == expected


def test_mask_box_and_points_are_drawn_where_they_are() -> None:
    drawn = np.asarray(draw_overlay(GRAY, [DrawnObject(_mask(), (15, 5, 65, 45), ((30, 25), (50, 25)))]))
    scale = drawn.shape[1] / 100
    assert _has(drawn, CONTOUR)
    assert _has(drawn[:, : round(25 * scale)], BOX_COLOR)
    assert not _has(drawn[:, round(68 * scale) :], BOX_COLOR)
    x, y = round(30.5 * scale), round(25.5 * scale)
    assert _has(drawn[y - 12 : y + 12, x - 12 : x + 12], POINT_COLOR)
    tinted, outside = drawn[y, round(42 * scale)], drawn[y, round(90 * scale)]
    assert tinted[2] > 120 > outside[2]  # tinted inside, dimmed outside


def test_several_objects_have_a_color_each_and_their_number() -> None:
    left, right = np.zeros((2, 50, 100), np.bool_)
    left[10:40, 5:35], right[10:40, 60:90] = True, True
    objects = [DrawnObject(left, (5, 10, 35, 40), ((20, 25),)), DrawnObject(right, (60, 10, 90, 40), (), "cup")]

    drawn = np.asarray(draw_overlay(GRAY, objects))

    halves = drawn[:, :320], drawn[:, 320:]
    assert [[_has(half, color) for color in COLORS[:2]] for half in halves] == [[True, False], [False, True]]
    assert not _has(drawn, POINT_COLOR)
    badge, unlabeled = (np.asarray(draw_overlay(GRAY, [objects[0], other])) for other in (objects[1], DrawnObject()))
    assert _filled(badge[:, 320:], COLORS[1]) > _filled(unlabeled[:, 320:], COLORS[1]) + 500


def test_an_object_is_drawn_the_same_wherever_others_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    rows, columns = np.mgrid[:240, :320]
    small = (rows - 101) ** 2 + (columns - 87) ** 2 < 31**2
    corners = small.copy()
    corners[0, 0] = corners[-1, -1] = True  # so that all of the image is looked at

    one, other = (np.asarray(draw_overlay(image, [DrawnObject(mask)])).astype(int) for mask in (small, corners))

    scale = one.shape[1] / 320
    near = slice(round(20 * scale), round(-20 * scale))
    differs = np.abs(one - other).max(axis=-1)[near, near] > 0
    assert differs.sum() < 50  # of 224,000: where rounding decides what is inside


def test_small_objects_cost_their_own_area(monkeypatch: pytest.MonkeyPatch) -> None:
    blurred = [0]
    blur = Image.Image.filter

    def count(picture: Image.Image, kernel: ImageFilter.GaussianBlur) -> Image.Image:
        blurred[-1] += picture.width * picture.height
        return blur(picture, kernel)

    monkeypatch.setattr(Image.Image, "filter", count)
    image = np.zeros((1080, 1920, 3), np.uint8)
    masks = np.zeros((20, 1080, 1920), np.bool_)
    for place, mask in enumerate(masks):
        mask[500:520, 80 * place : 80 * place + 20] = True

    drawn = draw_overlay(image, [DrawnObject(mask) for mask in masks])

    assert 0 < blurred[0] < drawn.width * drawn.height


def test_without_mask_the_image_stays_as_it_is() -> None:
    for objects in ([], [DrawnObject()], [DrawnObject(np.zeros((50, 100), np.bool_))]):
        drawn = np.asarray(draw_overlay(GRAY, objects))
        assert (drawn == 120).all()


def test_an_overlay_card_grows_with_its_words() -> None:
    drawing = Drawing(GRAY, (DrawnObject(_mask(), (20, 10, 60, 40), ((30, 25), (50, 25))),))
    short = overlay_card(drawing, CAPTION)
    long = overlay_card(drawing, replace(CAPTION, rationale=" ".join(["word"] * 130), query="x" * 1000))
    assert short.width == long.width == CARD_WIDTH
    assert long.height > short.height + 100
    failed = overlay_card(Drawing(GRAY), replace(CAPTION, rationale=None, problem="no answer: no JSON"))
    assert failed.width == CARD_WIDTH


def test_a_contact_sheet_has_a_cell_for_every_result() -> None:
    cell = Cell(Drawing(GRAY, (DrawnObject(_mask()),)), CAPTION)
    one, two = (contact_sheet("Title", "subtitle", [[cell, cell]] * count) for count in (1, 2))
    assert one.width == two.width
    assert two.height > one.height + 150


def test_a_long_variant_does_not_reach_the_figures() -> None:
    caption = replace(CAPTION, query="", rationale_tokens=222)
    long, none = (
        np.asarray(contact_sheet("", "", [[Cell(Drawing(GRAY), replace(caption, variant=variant))]]))
        for variant in ("trained, verbose", "")
    )
    written, figures = (long != none).any(axis=(0, 2)), (none == BRIGHT).all(axis=2).any(axis=0)
    assert np.flatnonzero(written).max() + 10 < np.flatnonzero(figures).min()


def test_bars_share_a_scale() -> None:
    full, half = (np.asarray(bar_block(LATENCY_MS, longest, 200)) for longest in (332.0, 664.0))
    assert (full[7, 150] != half[7, 150]).any()
    assert (full[7, 60] == half[7, 60]).all()
    assert phases(LATENCY_MS) == {"preprocess": 2.0, "prefill": 30.0, "decode": 300.0}
    assert legend_block(LATENCY_MS, 15, 120).height > legend_block(LATENCY_MS, 15, 600).height


@pytest.mark.parametrize("text", ["one two three " * 20, "x" * 500, "a " + "y" * 90 + " b", "найди красное кольцо"])
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    font = font_for(text, 16)
    lines = wrap(text, font, 150)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(font.getlength(line) <= 150 for line in lines)


def test_blank_text_takes_no_room() -> None:
    assert wrap("  ", font_for("x", 16), 100) == []
    assert text_block("", 16, (0, 0, 0), 100).height == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 ms"), (3.14, "3.1 ms"), (38.4, "38 ms"), (999.4, "999 ms"), (2310.0, "2.31 s")]
)
def test_durations_are_short(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_letters_that_the_built_in_font_lacks_come_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = font_for("plain", 16)
    assert missing_letters(built_in, "plain") == 0
    assert missing_letters(built_in, "кольцо") == 5  # o stands twice
    monkeypatch.setattr(typography, "_system", lambda name, size: None)
    assert font_for("кольцо", 16) is built_in
