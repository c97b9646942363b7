"""Images with more than 8 bits per channel: how many bits they use, and the upper 8 of those.

Cameras of 10, 12 or 14 bits often store their values unscaled in files and messages of 16 bits, whose own upper 8 bits
are then almost black.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from wise_edge.images.strips import crop_strips, strips

_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _PHOTOMETRIC = 258, 281, 262
"""Tags of TIFF 6.0 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf)."""
_WHITE_IS_ZERO = 0
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Pillow's name of an unpacking that keeps the upper byte, to that of the one that keeps the lower byte."""


@dataclass
class StreamDepth:
    """The depth of a camera's images of 16 bits per channel.

    It only grows, so that neither a dark image is brightened nor the brightness changes from image to image.

    Attributes:
        bits: the most that an image has used; None if none of them had 16 bits per channel.
    """

    bits: int | None = None

    def update(self, bits: int) -> int:
        """Take an image's depth into account and return the stream's."""
        self.bits = max(bits, self.bits or 0)
        return self.bits

    def scale(self, values: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return an image's values with 8 bits; see `scale_to_8_bits`."""
        return scale_to_8_bits(values, self.update(find_depth(values)))


def find_depth(values: NDArray[np.integer[Any]]) -> int:
    """Return the least usual depth in bits, of 8, 10, 12, 14, 16, 24 and 32, that holds the largest value.

    A stream of frames should use the largest depth that it has had, so that a dark frame is not brightened.

    Args:
        values: not negative, any shape.
    """
    needed = int(values.max(initial=0)).bit_length()
    return next(bits for bits in _DEPTHS if bits >= needed)


def scale_to_8_bits(values: NDArray[np.integer[Any]], bits: int) -> NDArray[np.uint8]:
    """Return the upper 8 of the lower `bits` bits of each value; larger values become 255.

    Args:
        values: not negative, at least one dimension.
        bits: depth of the values, at least 8.
    """
    upper = np.empty(values.shape, np.uint8)
    for rows in strips((max(1, values[:1].size), len(values))):
        upper[rows] = np.minimum(values[rows] >> (bits - 8), 255)
    return upper


def read_gray(
    image: Image.Image, file: BinaryIO | None, stream: StreamDepth | None = None
) -> tuple[NDArray[np.uint8], str | None]:
    """Return an image of Pillow's modes "I" and "I;16" with 8 bits.

    The depth is the one that the file states (bits per sample or largest value of TIFF, significant bits of PNG,
    largest value of PGM); without one it is `find_depth`'s.

    Args:
        image: the image.
        file: what it was opened from; None if only the image is at hand.
        stream: of the camera, if it is one of a camera's images.

    Returns:
        HW uint8, and how values were scaled that do not use 16 bits, for people.

    Raises:
        ValueError: a value is negative.
    """
    values = np.empty((image.height, image.width), np.int32 if image.mode == "I" else np.uint16)
    for rows, part in crop_strips(image):
        values[rows] = np.asarray(part)
    if values.min(initial=0) < 0:
        raise ValueError("negative values")
    if image.format == "TIFF" and image.mode != "I" and _tiff_number(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 65535 - values  # Pillow inverts only 8 bits
    bits, note = _choose_depth(int(values.max()), _stated_depth(image, file, values), stream)
    return scale_to_8_bits(values, bits), note


def spread_color(image: ImageFile.ImageFile, file: BinaryIO, stream: StreamDepth | None = None) -> str | None:
    """Scale color of 16 bits that uses fewer; Pillow itself keeps the upper 8 bits of all 16.

    Args:
        image: an image of mode RGB or RGBA, opened and not yet loaded; it is changed.
        file: what it was opened from.
        stream: of the camera, if it is one of a camera's images.

    Returns:
        How values were scaled that do not use 16 bits, for people.
    """
    lower = [tile._replace(args=_swap_bytes(tile.args)) for tile in image.tile]
    if not lower or any(tile.args is None for tile in lower):
        return None  # not of 16 bits
    if max(np.asarray(part)[..., :3].max() for _, part in crop_strips(image)) >= 128:  # all 16 are used
        if stream is not None:
            stream.update(16)
        return None
    with Image.open(file, formats=[str(image.format)]) as again:
        again.tile = lower
        bits, note = _choose_depth(max(int(values.max()) for *_, values in _wide_strips(image, again)), None, stream)
        for rows, upper, values in _wide_strips(image, again):
            upper[..., :3] = scale_to_8_bits(values, bits)
            image.paste(Image.fromarray(upper), (0, rows.start))
    return note


def _wide_strips(
    image: Image.Image, again: Image.Image
) -> Iterator[tuple[slice, NDArray[np.uint8], NDArray[np.uint16]]]:
    """Yield rows, their upper bytes with all channels, and their 16-bit color."""
    for (rows, part), (_, lower) in zip(crop_strips(image), crop_strips(again), strict=True):
        upper = np.array(part)
        yield rows, upper, upper[..., :3].astype(np.uint16) << 8 | np.asarray(lower)[..., :3]


def _choose_depth(largest: int, stated: int | None, stream: StreamDepth | None) -> tuple[int, str | None]:
    bits = max(stated or 0, find_depth(np.array(largest)))
    if stream is not None:
        bits = stream.update(bits)
    reason = f"its file states {bits}" if bits == stated else f"its largest value is {largest}"
    return bits, None if bits == 16 else f"was read as an image of {bits} bits per channel, since {reason}"


def _swap_bytes(args: Any) -> Any:
    """Return the arguments of a decoder with the lower byte of 16-bit color instead of the upper; None without such."""
    name, *rest = args if isinstance(args, tuple) else (args,)
    color, _, byte = str(name).partition(";16")
    if color not in ("RGB", "RGBA") or byte not in _OTHER_BYTE:
        return None
    swapped = f"{color};16{_OTHER_BYTE[byte]}"
    return (swapped, *rest) if isinstance(args, tuple) else swapped


def _stated_depth(image: Image.Image, file: BinaryIO | None, values: NDArray[np.integer[Any]]) -> int | None:
    if image.format == "TIFF":
        bits, largest = _tiff_number(image, _BITS_PER_SAMPLE), _tiff_number(image, _MAX_SAMPLE_VALUE)
        if largest:
            return max(8, largest.bit_length())
        return bits if bits and 8 < bits < 16 else None
    if file is None:
        return None
    if image.format == "PNG":
        return _png_depth(file, values)
    return _pgm_depth(file) if image.format == "PPM" else None


def _tiff_number(image: Image.Image, tag: int) -> int | None:
    value: Any = getattr(image, "tag_v2", {}).get(tag)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _png_depth(file: BinaryIO, values: NDArray[np.integer[Any]]) -> int | None:
    """Return the depth of a PNG file's sBIT chunk if its values are stored unscaled.

    The specification (https://www.w3.org/TR/png-3/#11sBIT) wants them scaled to 16 bits. Scaled values that are below
    2 ** depth are multiples of 2 ** (16 - depth).
    """
    position = 8
    while True:
        file.seek(position)
        head = file.read(9)
        if len(head) < 9 or head[4:8] in (b"IDAT", b"IEND"):
            return None
        if head[4:8] == b"sBIT":
            bits = head[8]
            unscaled = 8 <= bits < 16 and not (values >> bits).any() and (values & ((1 << 16 - bits) - 1)).any()
            return bits if unscaled else None
        position += 12 + int.from_bytes(head[:4], "big")


def _pgm_depth(file: BinaryIO) -> int | None:
    """Return 16 for a PGM file whose stated largest value Pillow has stretched to 65535.

    A stated 65535 says nothing: OpenCV states it of all 16-bit images.
    """
    file.seek(0)
    words = b"\n".join(line.split(b"#")[0] for line in file.read(4096).splitlines()).split()
    return None if words[3:4] == [b"65535"] else 16
