"""Every common kind of image loads as it is meant to be seen; anything else is reported in one clear line."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wise_edge.arguments import check_image
from wise_edge.errors import UsageError
from wise_edge.images import load_image, save_png

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def pattern() -> Image.Image:
    """Four columns by two rows: red, green, blue, white, and again."""
    return Image.fromarray(np.array([[RED, GREEN, BLUE, WHITE]] * 2, np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size and whose data is almost empty."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def assert_colors(image: NDArray[np.uint8], expected: list[tuple[int, int, int]], tolerance: int = 0) -> None:
    assert image.dtype == np.uint8
    assert np.abs(image[0].astype(int) - np.array(expected)).max() <= tolerance


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "JPEG"])
def test_formats(format: str, tmp_path: Path) -> None:
    options = {"WEBP": {"lossless": True}}.get(format, {})
    original = Image.new("RGB", (5, 3), RED)
    path = tmp_path / f"image.{format.lower()}"
    path.write_bytes(encoded(original, format, **options))
    for source in (path, str(path), path.read_bytes()):
        image = load_image(source)
        assert image.shape == (3, 5, 3)
        assert_colors(image, [RED] * 5, tolerance=2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_one_pixel_of_every_mode(mode: str) -> None:
    image = load_image(encoded(Image.new(mode, (1, 1))))
    assert image.shape == (1, 1, 3) and image.flags.c_contiguous


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert_colors(load_image(encoded(cmyk, "TIFF")), [RED, RED])
    assert_colors(load_image(encoded(cmyk, "JPEG", quality=95)), [RED, RED], tolerance=4)


def test_palette() -> None:
    assert_colors(
        load_image(encoded(pattern().convert("P", palette=Image.Palette.ADAPTIVE))), [RED, GREEN, BLUE, WHITE]
    )


def test_palette_with_one_transparent_color_is_composited_over_white() -> None:
    source = Image.new("P", (2, 1))
    source.putpalette([*RED, *GREEN])
    source.putpixel((1, 0), 1)
    assert_colors(load_image(encoded(source, transparency=1)), [RED, WHITE])


def test_palette_with_graded_transparency_is_composited_over_white() -> None:
    source = Image.new("P", (2, 1))
    source.putpalette([*RED, *GREEN])
    source.putpixel((1, 0), 1)
    assert_colors(load_image(encoded(source, transparency=bytes([255, 128]))), [RED, (127, 255, 127)], tolerance=1)


def test_alpha_is_composited_over_white() -> None:
    rgba = Image.fromarray(np.array([[(*RED, 255), (*RED, 0), (*BLUE, 128)]], np.uint8))
    assert_colors(load_image(encoded(rgba)), [RED, WHITE, (127, 127, 255)], tolerance=1)
    gray = Image.fromarray(np.array([[(0, 255), (0, 0), (100, 255)]], np.uint8), mode="LA")
    assert_colors(load_image(encoded(gray)), [(0, 0, 0), WHITE, (100, 100, 100)])


def test_a_transparent_color_of_rgb_is_composited_over_white() -> None:
    assert_colors(load_image(encoded(pattern(), transparency=GREEN)), [RED, WHITE, BLUE, WHITE])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray_keeps_its_upper_bits(format: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = load_image(encoded(Image.fromarray(values), format))
    assert_colors(image, [(v, v, v) for v in (0, 0, 1, 128, 255)])


def test_one_bit() -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert_colors(load_image(encoded(bits)), [WHITE, (0, 0, 0)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((2, 4, 3), np.uint8)
    upright[0, 0] = RED
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_image(data), upright)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_yields_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in (RED, BLUE)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert_colors(load_image(data), [RED] * 3, tolerance=2)


def rejection(source: str | Path | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        load_image(source)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_missing_and_folder(tmp_path: Path) -> None:
    assert "does not exist" in rejection(tmp_path / "no.png")
    assert "is a folder" in rejection(tmp_path)
    assert "cannot read" in rejection("the query instead of the image " * 200)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encoded(pattern()))
    path.chmod(0)
    assert "cannot read" in rejection(path)


@pytest.mark.parametrize("content", [b"", b"only words, no image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"])
def test_content_that_is_not_an_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "words.png"
    path.write_bytes(content)
    assert str(path) in rejection(path)
    rejection(content)


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "JPEG"])
def test_cut_short(format: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"half.{format.lower()}"
    data = encoded(Image.fromarray(noise), format)
    path.write_bytes(data[: len(data) // 2])
    assert str(path) in rejection(path)


TOO_LARGE = {
    (5_001, 5_000): "at most 25 million are read",
    (20_000, 20_000): "more than 25 million",
    (2**31 - 1, 1): "more than 25 million",
    (25_000_000, 1): "at most 16384 on a side",
    (1, 16_385): "at most 16384 on a side",
    (1_281, 10): "at most 128 times the other",
    (1, 129): "at most 128 times the other",
    (0, 10): "no pixels",
}


@pytest.mark.parametrize("size", TOO_LARGE)
def test_bombs_and_images_without_pixels(size: tuple[int, int]) -> None:
    message = rejection(png_header(*size))
    if size != (0, 10):
        assert TOO_LARGE[size] in message


@pytest.mark.parametrize("size", [size for size in TOO_LARGE if size[0] * size[1] in range(1, 10**8)])
def test_arrays_have_the_bounds_of_files(size: tuple[int, int]) -> None:
    array = np.broadcast_to(np.uint8(0), (size[1], size[0], 3))
    with pytest.raises(UsageError, match=TOO_LARGE[size]):
        check_image(array)


@pytest.mark.parametrize("size", [(5_000, 5_000), (16_384, 1_525), (128, 16_384)])
def test_large_images_within_the_bounds_are_not_bombs(size: tuple[int, int]) -> None:
    assert "cut short" in rejection(png_header(*size))


def test_floating_point_pixels() -> None:
    assert "floating-point" in rejection(encoded(Image.new("F", (2, 2)), "TIFF"))


def test_text_chunks_that_unpack_to_much_are_rejected() -> None:
    source = encoded(pattern())
    packed = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    load_image(source)
    rejection(source[:33] + chunk + source[33:])


KINDS = [("RGB", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF"), ("RGB", "WEBP")]
SAMPLES = [encoded(Image.linear_gradient("L").resize((24, 24)).convert(mode), format) for mode, format in KINDS]


@settings(max_examples=200)
@given(
    st.sampled_from(SAMPLES), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12)
)
def test_damaged_images_load_or_are_rejected(data: bytes, damage: list[tuple[float, int]]) -> None:
    content = bytearray(data)
    for where, value in damage:
        content[int(where * min(len(content), 200))] = value
    try:
        image = load_image(bytes(content))
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 3 and image.dtype == np.uint8


def test_saved_images_load_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    save_png(pixels, path)
    np.testing.assert_array_equal(load_image(path), pixels)
    with pytest.raises(UsageError, match="exists"):
        save_png(pixels, path)
    save_png(pixels[..., 0], path, force=True)
    np.testing.assert_array_equal(load_image(path)[..., 1], pixels[..., 0])


def test_masks_are_saved_black_and_white(tmp_path: Path) -> None:
    mask = np.eye(4, dtype=bool)
    save_png(mask, tmp_path / "mask.png")
    np.testing.assert_array_equal(load_image(tmp_path / "mask.png")[..., 0], mask * 255)


def test_a_pipe_is_named() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb") as pipe:
        pipe.write(encoded(pattern(), "PNG"))
        pipe.close()
        with pytest.raises(UsageError, match=r"/dev/fd/\d+ is a pipe; pass an image file"):
            load_image(f"/dev/fd/{reading}")
