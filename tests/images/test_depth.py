"""Images of 16 bits per channel that use fewer, as cameras of 10 to 14 bits write them, are as bright as seen."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wise_edge.errors import UsageError
from wise_edge.images import load_image
from wise_edge.images.depth import find_depth, scale_to_8_bits

RAMP = np.array([[0, 16, 1000, 2048, 4080]], np.uint16)
"""Values of a camera of 12 bits."""
SEEN = (0, 1, 62, 128, 255)


def png16(pixels: NDArray[np.uint16], significant: int | None = None) -> bytes:
    """A PNG of 16 bits per channel, H x W gray or H x W x 3 or 4, with an sBIT chunk if `significant` is given."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    bits = b"" if significant is None else chunk(b"sBIT", bytes([significant] * channels))
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + bits + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff_gray(values: NDArray[np.uint16], data: bytes, bits: int = 16, **tags: int) -> bytes:
    """An uncompressed TIFF of one channel; `t262=0` sets tag 262 to 0."""
    height, width = values.shape
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    data += b"\0" * (len(data) % 2)
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + rows + b"\0" * 4


def pack_12_bits(values: NDArray[np.uint16]) -> bytes:
    text = "".join(f"{value:012b}" for value in values.ravel())
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def saved(values: NDArray[Any], format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format, **options)
    return buffer.getvalue()


def read(data: bytes) -> tuple[list[int], list[str]]:
    """The first channel of the first row, and what was said about the image."""
    notes: list[str] = []
    image = load_image(data, say=notes.append)
    return image[0, :, 0].tolist(), notes


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_twelve_bits_in_sixteen_are_scaled_by_their_range_and_that_is_said(format: str) -> None:
    pixels, notes = read(saved(RAMP, format))
    assert pixels == list(SEEN)
    assert notes == ["the image was read as an image of 12 bits per channel, since its largest value is 4080"]


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4096, 14), (16384, 16)]
)
def test_the_depth_is_the_least_usual_one(largest: int, bits: int) -> None:
    values = np.array([[0, largest]], np.uint16)
    assert find_depth(values) == bits
    assert scale_to_8_bits(values, bits).tolist() == [[0, largest >> (bits - 8)]]


def test_values_beyond_a_given_depth_are_white() -> None:
    assert scale_to_8_bits(np.array([4095, 4096, 65535], np.uint16), 12).tolist() == [255, 255, 255]


def test_what_a_file_states_comes_before_its_range() -> None:
    dark = np.array([[0, 500, 1000]], np.uint16)  # 10 bits by their range
    twelve = [0, 31, 62]
    for data in (
        tiff_gray(dark, pack_12_bits(dark), bits=12),
        tiff_gray(dark, dark.tobytes(), t281=4095),
        png16(dark, significant=12),
    ):
        pixels, notes = read(data)
        assert pixels == twelve
        assert len(notes) == 1 and "12 bits per channel, since its file states 12" in notes[0]


def test_stated_bits_of_scaled_values_do_not_brighten_them() -> None:
    scaled = np.array([[0, 16, 1600, 4000]], np.uint16)  # multiples of 16: 12 bits as the PNG specification scales them
    assert "largest value is 4000" in read(png16(scaled, significant=12))[1][0]
    bright = np.array([[0, 30000, 65520]], np.uint16)
    assert read(png16(bright, significant=12)) == ([0, 117, 255], [])


def test_a_stated_maximum_of_pgm_is_the_white_point() -> None:
    header = b"P5\n# from a camera\n3 1\n4095\n"
    pixels, notes = read(header + np.array([0, 250, 4095], ">u2").tobytes())
    assert pixels == [0, 15, 255] and not notes
    dim, notes = read(header + np.array([0, 100, 250], ">u2").tobytes())
    assert dim == [0, 6, 15] and not notes  # scaled by the file's 4095, not by its own range


def test_tiff_with_white_as_zero() -> None:
    values = np.array([[0, 65535, 65535 - 4080]], np.uint16)
    assert read(tiff_gray(values, values.tobytes(), t262=0)) == ([255, 0, 15], [])


def test_32_bit_integers() -> None:
    pixels, notes = read(saved(np.array([[0, 2000, 4095]], np.int32), "TIFF"))
    assert pixels == [0, 125, 255] and "12 bits" in notes[0]
    with pytest.raises(UsageError, match="negative values"):
        load_image(saved(np.array([[0, -1]], np.int32), "TIFF"))


def test_color_of_twelve_bits_in_sixteen() -> None:
    color = np.stack([RAMP, RAMP[:, ::-1], RAMP], axis=-1)
    for data in (png16(color), png16(np.concatenate([color, np.full_like(color[..., :1], 65535)], axis=2))):
        notes: list[str] = []
        image = load_image(data, say=notes.append)
        assert image[0, :, 0].tolist() == list(SEEN) and image[0, :, 1].tolist() == list(SEEN[::-1])
        assert "12 bits per channel" in notes[0]


def test_color_that_uses_sixteen_bits_keeps_its_upper_ones() -> None:
    color = np.array([[[0, 300, 40000], [65535, 256, 255]]], np.uint16)
    notes: list[str] = []
    assert load_image(png16(color), say=notes.append).tolist() == [[[0, 1, 156], [255, 1, 0]]]
    assert not notes


def test_dark_images_of_eight_bits_are_left_alone() -> None:
    dark = np.full((2, 3, 3), 7, np.uint8)
    for format in ("PNG", "TIFF", "PPM", "BMP"):
        notes: list[str] = []
        assert (load_image(saved(dark, format), say=notes.append) == 7).all() and not notes


def test_an_orientation_turns_twelve_bits_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(saved(RAMP, "PNG", exif=exif))[:, 0, 0].tolist() == list(SEEN)
