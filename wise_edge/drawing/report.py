"""Images of results: one as an overlay card, several side by side as a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wise_edge.drawing.overlay import DrawnObject, draw_overlay
from wise_edge.drawing.panel import (
    ACCENT,
    BACKGROUND,
    BRIGHT,
    PLAIN,
    QUIET,
    RAISED,
    Caption,
    bar_block,
    chip_block,
    legend_block,
    outcome_block,
    stack,
    text_block,
)
from wise_edge.drawing.typography import font_for
from wise_edge.drawing.units import milliseconds

MARGIN = 24
CARD_WIDTH = 640
SHEET_IMAGE_PX = 340
SHEET_TEXT_PX = 420
SHEET_GAP = 28


@dataclass(frozen=True)
class Drawing:
    """What is drawn, in pixels of `image`.

    Attributes:
        image: HWC uint8 RGB.
        objects: what was found.
    """

    image: npt.NDArray[np.uint8]
    objects: tuple[DrawnObject, ...] = ()

    def draw(self, longest: int | None = None) -> Image.Image:
        """Draw the overlay; see `wise_edge.drawing.overlay.draw_overlay`."""
        return draw_overlay(self.image, self.objects, longest)


@dataclass(frozen=True)
class Cell:
    """One image of a contact sheet with its caption."""

    drawing: Drawing
    caption: Caption


def overlay_card(drawing: Drawing, caption: Caption) -> Image.Image:
    """Draw one result: the overlay, and below it query, rationale, tokens and latency by phase.

    Returns:
        An RGB image at least `CARD_WIDTH` pixels wide.
    """
    drawn = drawing.draw()
    width = max(CARD_WIDTH, drawn.width)
    panel = _card_panel(caption, width - 2 * MARGIN)
    card = Image.new("RGB", (width, drawn.height + panel.height + 2 * MARGIN), BACKGROUND)
    card.paste(drawn, ((width - drawn.width) // 2, 0))
    card.paste(panel, (MARGIN, drawn.height + MARGIN))
    return card


def _card_panel(caption: Caption, width: int) -> Image.Image:
    total = caption.latency_ms.get("total", 0.0)
    counts = (
        f"{caption.rationale_tokens} rationale tokens + {caption.answer_tokens} answer tokens in {milliseconds(total)}"
    )
    notes = [(text_block(note, 15, QUIET, width), 6) for note in caption.notes]
    blocks = [
        (text_block(caption.query, 24, BRIGHT, width), 0),
        (chip_block(caption.variant, counts, 16, width), 14),
        (outcome_block(caption, 17, width), 16),
        (bar_block(caption.latency_ms, sum(caption.latency_ms.values()) - total, width), 20),
        (legend_block(caption.latency_ms, 15, width), 10),
    ]
    return stack([*blocks, *notes], width)


def contact_sheet(title: str, subtitle: str, rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Lay out results as a grid: each row is a scene with its query, each column a variant.

    The bars of all cells share one scale, so their lengths are comparable.

    Args:
        title: First line.
        subtitle: Line below it.
        rows: Rows of the same number of cells; at least one.
    """
    cell_width = SHEET_IMAGE_PX + 18 + SHEET_TEXT_PX
    width = len(rows[0]) * (cell_width + SHEET_GAP) - SHEET_GAP
    longest = max(cell.caption.latency_ms.get("total", 0.0) for row in rows for cell in row)
    blocks = [
        (text_block(title, 34, BRIGHT, width), 0),
        (text_block(subtitle, 18, QUIET, width), 8),
        (legend_block(_all_phases(rows), 16, width, values=False), 14),
    ]
    blocks += [(_sheet_row(row, width, cell_width, longest), 26) for row in rows]
    body = stack(blocks, width)
    sheet = Image.new("RGB", (width + 2 * SHEET_GAP, body.height + 2 * SHEET_GAP), BACKGROUND)
    sheet.paste(body, (SHEET_GAP, SHEET_GAP))
    return sheet


def _all_phases(rows: Sequence[Sequence[Cell]]) -> dict[str, float]:
    merged: dict[str, float] = {}
    for cell in (cell for row in rows for cell in row):
        for name, value in cell.caption.latency_ms.items():
            merged[name] = max(value, merged.get(name, 0.0))
    return merged


def _sheet_row(row: Sequence[Cell], width: int, cell_width: int, longest_ms: float) -> Image.Image:
    cells = [_sheet_cell(cell, cell_width, longest_ms) for cell in row]
    heading = stack([(_rule(width), 0), (text_block(row[0].caption.query, 24, BRIGHT, width), 16)], width)
    block = Image.new("RGB", (width, heading.height + 14 + max(cell.height for cell in cells)), BACKGROUND)
    block.paste(heading, (0, 0))
    for column, cell in enumerate(cells):
        block.paste(cell, (column * (cell_width + SHEET_GAP), heading.height + 14))
    return block


def _rule(width: int) -> Image.Image:
    return Image.new("RGB", (width, 2), RAISED)


def _sheet_cell(cell: Cell, width: int, longest_ms: float) -> Image.Image:
    drawn = cell.drawing.draw(SHEET_IMAGE_PX)
    caption = cell.caption
    blocks = [
        (_headline(caption, SHEET_TEXT_PX), 0),
        (bar_block(caption.latency_ms, longest_ms, SHEET_TEXT_PX), 12),
        (outcome_block(caption, 15, SHEET_TEXT_PX), 16),
    ]
    blocks += [(text_block(note, 14, QUIET, SHEET_TEXT_PX), 10) for note in caption.notes]
    words = stack(blocks, SHEET_TEXT_PX)
    block = Image.new("RGB", (width, max(drawn.height, words.height)), BACKGROUND)
    block.paste(drawn, ((SHEET_IMAGE_PX - drawn.width) // 2, 0))
    block.paste(words, (SHEET_IMAGE_PX + 18, 0))
    return block


def _headline(caption: Caption, width: int) -> Image.Image:
    """Set rationale tokens and latency as large figures on the right, and the variant in the remaining width."""
    block = Image.new("RGB", (width, 48), BACKGROUND)
    draw = ImageDraw.Draw(block)
    x = float(width)
    total = milliseconds(caption.latency_ms.get("total", 0.0))
    for figure, unit in ((total, ""), (str(caption.rationale_tokens), "rationale tokens")):
        if unit:
            draw.text((x, 30), unit, font=font_for(unit, 15), fill=PLAIN, anchor="rs")
            x -= font_for(unit, 15).getlength(unit) + 8
        draw.text((x, 30), figure, font=font_for(figure, 30), fill=BRIGHT, anchor="rs")
        x -= font_for(figure, 30).getlength(figure) + 26
    fonts = [font_for(caption.variant, size) for size in range(24, 13, -1)]
    font = next((font for font in fonts if font.getlength(caption.variant) <= x), fonts[-1])
    draw.text((0, 30), caption.variant, font=font, fill=ACCENT, anchor="ls")
    return block
