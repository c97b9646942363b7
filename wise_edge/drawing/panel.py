"""The text and bars next to an image, as stacked strips; each strip is as tall as its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from wise_edge.drawing.typography import font_for, line_height, wrap
from wise_edge.drawing.units import milliseconds

BACKGROUND = (17, 22, 33)
RAISED = (30, 38, 54)
BRIGHT = (244, 247, 252)
PLAIN = (203, 212, 226)
QUIET = (142, 154, 175)
WARNING = (255, 166, 87)
ACCENT = (0, 214, 255)
PHASE_COLORS = {
    "preprocess": (132, 146, 168),
    "vision_encode": (86, 204, 157),
    "prefill": (255, 206, 84),
    "decode": (255, 99, 132),
    "mask_encode": (92, 142, 255),
    "mask_decode": (178, 132, 255),
}
OTHER_COLOR = (70, 80, 100)


@dataclass(frozen=True)
class Caption:
    """What is written next to one image.

    Attributes:
        query: The user's query.
        variant: Prompt variant.
        rationale: The policy's rationale; with a `problem`, its complete text.
        rationale_tokens: Tokens of the rationale.
        answer_tokens: Tokens of the answer.
        latency_ms: Phase (and `total`) to milliseconds.
        notes: Further lines in gray.
        problem: Why there is no mask; None if there is one.
    """

    query: str
    variant: str
    rationale: str | None
    rationale_tokens: int
    answer_tokens: int
    latency_ms: Mapping[str, float]
    notes: Sequence[str] = field(default=())
    problem: str | None = None


def text_block(text: str, size: int, color: tuple[int, int, int], width: int, bar: bool = False) -> Image.Image:
    """Set a text in lines.

    Args:
        text: Any text; a blank one gives a strip of height 0.
        size: Letter size in pixels.
        color: RGB.
        width: Width of the strip in pixels.
        bar: Draw a colored bar on the left, as for a quotation.
    """
    font = font_for(text, size)
    indent = 16 if bar else 0
    lines = wrap(text, font, width - indent)
    step = line_height(font)
    block = Image.new("RGB", (width, step * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        draw.text((indent, number * step), line, font=font, fill=color)
    if bar and lines:
        draw.rounded_rectangle([0, 1, 3, block.height - 3], radius=2, fill=ACCENT)
    return block


def chip_block(chip: str, text: str, size: int, width: int) -> Image.Image:
    """Draw a pill with the variant's name, and a line of text to its right."""
    font = font_for(chip, size)
    step = line_height(font) + 8
    pill = round(font.getlength(chip)) + 24
    words = text_block(text, size, PLAIN, width - pill - 14)
    block = Image.new("RGB", (width, max(step, words.height)), BACKGROUND)
    draw = ImageDraw.Draw(block)
    draw.rounded_rectangle([0, 0, pill, step - 1], radius=step // 2, fill=ACCENT)
    draw.text((pill / 2, step / 2), chip, font=font, fill=BACKGROUND, anchor="mm")
    block.paste(words, (pill + 14, max(0, (step - line_height(font)) // 2)))
    return block


def phases(latency_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the phases that took time, in the order they ran, without the total."""
    return {name: value for name, value in latency_ms.items() if name != "total" and value > 0}


def bar_block(latency_ms: Mapping[str, float], longest_ms: float, width: int, height: int = 14) -> Image.Image:
    """Draw the phases as one stacked bar.

    Args:
        latency_ms: Phase to milliseconds.
        longest_ms: Duration that fills the width, so that bars can be compared.
        width: Width of the strip in pixels.
        height: Height of the strip in pixels.
    """
    block = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(block)
    draw.rounded_rectangle([0, 0, width - 1, height - 1], radius=height // 2, fill=RAISED)
    filled = Image.new("RGB", block.size, RAISED)
    start = 0.0
    for name, value in phases(latency_ms).items():
        end = start + value / max(longest_ms, 1e-9) * width
        ImageDraw.Draw(filled).rectangle([start, 0, end, height], fill=PHASE_COLORS.get(name, OTHER_COLOR))
        start = end
    outline = Image.new("L", block.size, 0)
    ImageDraw.Draw(outline).rounded_rectangle([0, 0, max(height, min(width, start)) - 1, height - 1], height // 2, 255)
    block.paste(filled, mask=outline)
    return block


def legend_block(latency_ms: Mapping[str, float], size: int, width: int, values: bool = True) -> Image.Image:
    """Name the colors of `bar_block`, with milliseconds if `values`, in as many rows as needed."""
    labels = [
        (name, name.replace("_", " ") + (f" {milliseconds(value)}" if values else ""))
        for name, value in phases(latency_ms).items()
    ]
    font = font_for("".join(label for _, label in labels), size)
    step, square = line_height(font) + 2, round(size * 0.75)
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for name, label in labels:
        needed = square + 7 + font.getlength(label)
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, name, label))
        x += needed + 18
    block = Image.new("RGB", (width, step * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(block)
    for row, entries in enumerate(rows):
        middle = row * step + step / 2
        for x, name, label in entries:
            edges = [x, middle - square / 2, x + square, middle + square / 2]
            draw.rounded_rectangle(edges, radius=3, fill=PHASE_COLORS.get(name, OTHER_COLOR))
            draw.text((x + square + 7, middle), label, font=font, fill=QUIET, anchor="lm")
    return block


def stack(blocks: Sequence[tuple[Image.Image, int]], width: int) -> Image.Image:
    """Stack strips vertically; strips of height 0 and their gaps are left out.

    Args:
        blocks: `(strip, pixels of space above it)`.
        width: Width of the result in pixels.
    """
    shown = [(block, gap) for block, gap in blocks if block.height]
    stacked = Image.new("RGB", (width, max(1, sum(block.height + gap for block, gap in shown))), BACKGROUND)
    y = 0
    for block, gap in shown:
        stacked.paste(block, (0, y + gap))
        y += gap + block.height
    return stacked


def outcome_block(caption: Caption, size: int, width: int) -> Image.Image:
    """Set the rationale; if there is no mask, the reason and what the policy wrote instead."""
    if caption.problem is None:
        return text_block(caption.rationale or "(no rationale)", size, PLAIN, width, bar=True)
    written = text_block(caption.rationale or "(nothing)", size, QUIET, width, bar=True)
    return stack([(text_block(caption.problem, size, WARNING, width), 0), (written, 8)], width)
