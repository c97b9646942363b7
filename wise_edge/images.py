"""Reading images of all common kinds as 8-bit RGB, and writing PNG files.

Only the formats in `FORMATS` are opened; others that Pillow supports run external programs (EPS) or are not images.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wise_edge.errors import UsageError
from wise_edge.files import atomic_write

MAX_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


def load_image(source: str | Path | bytes, max_pixels: int = MAX_PIXELS, *, upright: bool = True) -> NDArray[np.uint8]:
    """Read an image as it is meant to be seen.

    Transparent pixels are composited over white, 16-bit gray keeps its upper 8 bits, CMYK and palettes are converted to
    RGB, an EXIF orientation is applied, and an animation yields its first frame.

    Args:
        source: a path, or the content of an image file.
        max_pixels: largest number of pixels; the size is checked before the image is decoded.
        upright: whether to apply an EXIF orientation.

    Returns:
        HWC uint8 RGB, at least 1 x 1, at most `max_pixels` pixels.

    Raises:
        UsageError: the file is missing, a folder, empty, damaged, too large or not an image.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the image", max_pixels, upright)
    try:
        with Path(source).open("rb") as file:
            return _decode(file, str(source), max_pixels, upright)
    except FileNotFoundError:
        raise UsageError(f"{source} does not exist; pass an image file") from None
    except IsADirectoryError:
        raise UsageError(f"{source} is a folder; pass an image file") from None
    except OSError as error:
        raise UsageError(f"cannot read {str(source)[:200]}: {error.strerror or error}") from None


def save_png(array: NDArray[np.uint8] | NDArray[np.bool_], path: str | Path, force: bool = False) -> None:
    """Write a PNG file atomically, so that no reader sees an incomplete one.

    Args:
        array: HWC uint8 RGB, HW uint8 gray, or HW bool (written as 0 and 255).
        path: the file to write; its folder must exist.
        force: replace an existing file.

    Raises:
        UsageError: the file exists and `force` is off, or it cannot be written.
    """
    pixels = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue(), force=force)


def _decode(file: BinaryIO, name: str, max_pixels: int, upright: bool) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images and odd metadata; the size is checked here
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, name, max_pixels)
                return np.array(_to_rgb(ImageOps.exif_transpose(image) if upright else image, name))
        except UsageError:
            raise
        except Image.DecompressionBombError:
            raise UsageError(f"{name} has more than {max_pixels / 1e6:g} million pixels; make it smaller") from None
        except UnidentifiedImageError:
            raise UsageError(f"{name} is empty or not an image in one of the formats {', '.join(FORMATS)}") from None
        except Exception as error:  # Pillow's decoders raise almost any exception for damaged files
            detail = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(f"{name} is damaged or cut short ({detail}); save it again") from None


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height == 0:
        raise UsageError(f"{name} has no pixels; pass another image")
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise UsageError(f"{name} has {size}; at most {max_pixels / 1e6:g} million are read; make it smaller")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise UsageError(f"{name} has floating-point pixels; save it with 8 bits per channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow uses either mode for 16-bit files; both hold values from 0 to 65535.
        gray = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
