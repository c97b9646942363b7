"""Work on an image a few rows at a time, so that no second copy of all of it is made.

Pillow keeps four bytes of an RGB pixel, and each of its conversions is a further copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from wise_edge.geometry import Size

_STRIP_PX = 1 << 18  # what a processor's cache holds


def strips(size: Size) -> Iterator[slice]:
    """Yield the rows of an image in order, a quarter of a million pixels at a time.

    Args:
        size: (width, height) of the image, px.
    """
    width, height = size
    step = max(1, _STRIP_PX // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def crop_strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield rows of an image, and the image of those rows alone."""
    for rows in strips(image.size):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))
