"""Sets text in images: chooses a font that has the letters, and breaks lines to fit a width.

Pillow's built-in font covers little beyond ASCII, so a query in another script is set in the common system font that
has most of its letters.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)
_NO_CHARACTER = "\uffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def _built_in(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _glyph(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def missing_letters(font: Font, text: str) -> int:
    """Count the distinct printable characters of `text` for which `font` has no glyph."""
    empty = _glyph(font, _NO_CHARACTER)
    return sum(_glyph(font, character) == empty for character in set(text) if not character.isspace())


def font_for(text: str, size: int) -> Font:
    """Choose the font for `text`: the built-in font if it has all letters, else the font that lacks the fewest.

    Args:
        text: What will be drawn.
        size: Height in pixels.
    """
    built_in = _built_in(size)
    if not missing_letters(built_in, text):
        return built_in
    system = [font for name in SYSTEM_FONTS if (font := _system(name, size)) is not None]
    return min([built_in, *system], key=lambda font: missing_letters(font, text))


def wrap(text: str, font: Font, width: int) -> list[str]:
    """Break `text` into lines of at most `width` pixels; a word that is too wide is cut.

    Returns:
        The lines in order; none for blank text.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _cut(word, font, width)
        lines += full
    return [*lines, line] if line else lines


def _cut(word: str, font: Font, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and font.getlength(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def line_height(font: Font) -> int:
    """Return the distance between two baselines in pixels."""
    return round(1.32 * float(getattr(font, "size", 11)))
