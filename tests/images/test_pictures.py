"""What stands for an image: a path, an image of Pillow or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fake_session
from wise_edge import Session, load_image
from wise_edge.errors import UsageError
from wise_edge.images import read_picture

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
PILLOW = Image.fromarray(RGB)


def deep(values: Any) -> Image.Image:
    return Image.fromarray(np.asarray(values, np.uint16))


def turned(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"])
def test_an_image_of_pillow_is_read_as_its_file_is(mode: str, tmp_path: Path) -> None:
    image = PILLOW.convert("RGBA").convert(mode) if mode in ("RGBa", "RGBA", "LA") else PILLOW.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(RGB[..., 0]))
    before = image.copy()
    pixels = read_picture(image)
    assert (pixels.shape, pixels.dtype, pixels.flags.writeable) == (RGB.shape, np.uint8, False)
    assert image == before
    if mode in ("RGBa", "YCbCr", "HSV", "LAB"):  # no file has them as they are
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGBA" if mode == "RGBa" else "RGB"))[..., :3])
        return
    file = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(file)
    np.testing.assert_array_equal(pixels, load_image(file))
    with Image.open(file) as opened:  # not loaded yet
        np.testing.assert_array_equal(read_picture(opened), pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_by_the_largest_value(dtype: Any, tmp_path: Path) -> None:
    values = np.arange(1200).reshape(30, 40) * 3  # of a camera with 12 bits
    image = Image.fromarray(values.astype(dtype))
    deep(values).save(tmp_path / "image.png")
    pixels = read_picture(image)
    np.testing.assert_array_equal(pixels, load_image(tmp_path / "image.png"))
    np.testing.assert_array_equal(pixels[..., 1], values >> 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied_and_the_image_stays_as_it_is(orientation: int, tmp_path: Path) -> None:
    image = turned(Image.fromarray(RGB), orientation)
    image.save(tmp_path / "image.png", exif=image.getexif())
    np.testing.assert_array_equal(read_picture(image), load_image(tmp_path / "image.png"))
    assert (image.size, image.getexif()[0x0112]) == ((40, 30), orientation)
    with Image.open(tmp_path / "image.png") as opened:
        np.testing.assert_array_equal(read_picture(opened), load_image(tmp_path / "image.png"))


def test_an_array_is_taken_itself_and_a_path_is_read(tmp_path: Path) -> None:
    PILLOW.save(tmp_path / "image.png")
    assert read_picture(RGB) is RGB
    for path in (tmp_path / "image.png", str(tmp_path / "image.png")):
        np.testing.assert_array_equal(read_picture(path), RGB)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "expected an image as a path, an image of Pillow or a uint8 RGB array .*, got None"),
        (b"\x89PNG", "got bytes"),
        ([[0, 0, 0]], "got list"),
        (np.zeros((4, 4), np.uint8), r"expected a uint8 RGB image \[H, W, 3\], got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), r"got float32 \[4, 4, 3\]"),
        ("none.png", "none.png does not exist"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "floating-point pixels"),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), "of mode I cannot be read"),
        (Image.new("RGB", (6000, 5000)), "30|million"),
        (Image.new("L", (1, 200)), "a side of at most 128 times"),
        (Image.new("L", (0, 3)), "no pixels"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        read_picture(given)
    assert len(str(refused.value).splitlines()) == 1


def test_a_damaged_and_a_closed_file_are_refused(tmp_path: Path) -> None:
    PILLOW.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:800])
    with Image.open(tmp_path / "cut.png") as opened, pytest.raises(UsageError, match="cannot be read"):
        read_picture(opened)
    closed = Image.open(tmp_path / "whole.png")
    closed.close()
    with pytest.raises(UsageError, match="cannot be read"):
        read_picture(closed)


def test_every_call_of_a_session_takes_them(tmp_path: Path) -> None:
    PILLOW.save(tmp_path / "image.png")
    session = Session(fake_session.FakePolicy(fake_session.write_canned), fake_session.FakeMask(), {})
    for picture in (RGB, PILLOW, tmp_path / "image.png", str(tmp_path / "image.png")):
        result = session.segment(picture, "the ring")
        np.testing.assert_array_equal(result.image, RGB)
        assert session.segment_many(picture, ["the ring"])[0].frame_reused
        assert session.find_mask(picture, (2, 2, 9, 9), ()).mask.shape == (30, 40)
    for call in (
        lambda: session.segment(7, "the ring"),  # type: ignore[arg-type]
        lambda: session.segment_many(7, ["the ring"]),  # type: ignore[arg-type]
        lambda: session.find_mask(7, (2, 2, 9, 9), ()),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match="expected an image as a path"):
            call()
