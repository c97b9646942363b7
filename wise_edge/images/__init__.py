"""Reading images of all common kinds as 8-bit RGB, and writing PNG files.

Only the formats in `FORMATS` are opened; others that Pillow supports run external programs (EPS) or are not images.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError, features

from wise_edge.arguments import MAX_PIXELS, check_image, check_size, describe
from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_special
from wise_edge.files.writing import atomic_write
from wise_edge.images.depth import StreamDepth, read_gray, spread_color
from wise_edge.images.kinds import HEAD, describe_kind, describe_raw
from wise_edge.images.strips import crop_strips

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else []))

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".avif",
    ".heic",
    ".heif",
)
"""Names of images in a folder; those of kinds that are not read are refused rather than left out."""

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""What stands for an image: a path, an image of Pillow, or HWC uint8 RGB."""

Say = Callable[[str], object]
"""Is told what a caller should know about an image that was read, in a line."""


def load_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    *,
    upright: bool = True,
    say: Say | None = None,
    stream: StreamDepth | None = None,
) -> NDArray[np.uint8]:
    """Read an image as it is meant to be seen.

    Transparent pixels are composited over white, CMYK and palettes are converted to RGB, an EXIF orientation is
    applied, and an animation yields its first frame. Of 16 bits per channel the upper 8 are kept; if the file states
    fewer bits, or its largest value needs fewer, the upper 8 of those.

    Args:
        source: a path, or the content of an image file.
        max_pixels: largest number of pixels; the size is checked before the image is decoded.
        upright: whether to apply an EXIF orientation.
        say: is told which of several frames was read, and of how many bits an image of 16 is.
        stream: depth of a camera's images, if it is one of them.

    Returns:
        HWC uint8 RGB, of a size that `wise_edge.arguments.check_size` accepts.

    Raises:
        UsageError: the file is missing, a folder, a device, a pipe, empty, damaged, too large or not an image of these
            formats; the message names what else it is.
    """
    with open_image(source, max_pixels) as (image, file, name):
        return _read(image, file, name, upright, say, stream)


@contextmanager
def open_image(
    source: str | Path | bytes, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO, str]]:
    """Yield an image that is opened and not yet decoded, its file, and its name for messages.

    Args:
        source: as of `load_image`.
        max_pixels: as of `load_image`.

    Raises:
        UsageError: as `load_image`, also for what Pillow raises while the block decodes the image.
    """
    if not isinstance(source, str | Path | bytes):
        raise UsageError(f"pass the path of an image file or its bytes, got {describe(source)}")
    if isinstance(source, bytes):
        with _opened(io.BytesIO(source), "the image", max_pixels) as opened:
            yield opened
        return
    refuse_special(source)
    try:
        with Path(source).open("rb") as file:
            if not file.seekable():
                raise UsageError(f"{source} is a pipe; pass an image file")
            with _opened(file, str(source), max_pixels) as opened:
                yield opened
    except FileNotFoundError:
        raise UsageError(f"{source} does not exist; pass an image file") from None
    except IsADirectoryError:
        raise UsageError(f"{source} is a folder; pass an image file") from None
    except OSError as error:
        raise UsageError(f"cannot read {str(source)[:200]}: {error.strerror or error}") from None


def read_picture(picture: Picture) -> NDArray[np.uint8]:
    """Return what stands for an image as an array.

    An image of Pillow is read as `load_image` reads a file, but for depths that only the file states: of 16 bits per
    channel, gray is scaled by its largest value, and color has only the upper 8 bits that Pillow keeps.

    Args:
        picture: a path, an image of Pillow, or HWC uint8 RGB.

    Returns:
        HWC uint8 RGB, of a size that `wise_edge.arguments.check_size` accepts: an array itself, of a masked one all
        pixels; for anything else an array that is read-only, which a session keeps without a copy.

    Raises:
        UsageError: it is something else, cannot be read, or is too large.
    """
    if isinstance(picture, np.ndarray):
        check_image(picture)
        return np.asarray(picture)  # a masked array, of which numpy's functions leave out pixels, as any other
    if not isinstance(picture, str | Path | Image.Image):
        wanted = "a path, an image of Pillow or a uint8 RGB array [H, W, 3]"
        raise UsageError(f"expected an image as {wanted}, got {describe(picture)}")
    pixels = _convert(picture) if isinstance(picture, Image.Image) else load_image(picture)
    pixels.flags.writeable = False
    return pixels


def encode_image(array: NDArray[np.uint8] | NDArray[np.bool_], suffix: str = ".png", quality: int = 92) -> bytes:
    """Return the content of an image file.

    Args:
        array: HWC uint8 RGB or RGBA, HW uint8 gray, or HW bool (written as 0 and 255).
        suffix: ".png", or ".jpg" or ".jpeg", which has no RGBA; of any case.
        quality: of JPEG, 1 to 95.
    """
    pixels = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    buffer = io.BytesIO()
    if suffix.lower() == ".png":
        Image.fromarray(pixels).save(buffer, format="PNG")
    else:  # colors at full resolution: thin colored lines bleed without
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:4:4")
    return buffer.getvalue()


def save_png(array: NDArray[np.uint8] | NDArray[np.bool_], path: str | Path, force: bool = False) -> None:
    """Write a PNG file atomically, so that no reader sees an incomplete one.

    Args:
        array: as of `encode_image`.
        path: the file to write; its folder must exist.
        force: replace an existing file.

    Raises:
        UsageError: the file exists and `force` is off, or it cannot be written.
    """
    atomic_write(path, encode_image(array), force=force)


@contextmanager
def _opened(file: BinaryIO, name: str, max_pixels: int) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images and odd metadata; the size is checked here
        try:
            with Image.open(file, formats=FORMATS) as image:
                check_size(image.size, name, max_pixels)
                if raw := describe_raw(image, _head(file), getattr(file, "name", None)):
                    raise UsageError(f"{name} {raw}")
                yield image, file, name
        except UsageError:
            raise
        except Image.DecompressionBombError:
            raise UsageError(f"{name} has more than {max_pixels / 1e6:g} million pixels; make it smaller") from None
        except UnidentifiedImageError:
            raise UsageError(f"{name} {_describe(file)}") from None
        except Exception as error:  # Pillow's decoders raise almost any exception for damaged files
            detail = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(f"{name} is damaged or cut short ({detail}); save it again") from None


def _convert(image: Image.Image) -> NDArray[np.uint8]:
    """Read an image of Pillow, which stays as it is."""
    check_size(image.size, "the image")
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return _read(ImageOps.exif_transpose(image) if turned else image, None, "the image", False, None, None)
    except UsageError:
        raise
    except Exception as error:  # what Pillow raises for a damaged or closed file, and for what it cannot convert
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(f"the image of mode {image.mode} cannot be read ({detail})") from None


def _describe(file: BinaryIO) -> str:
    """Say what is wrong with a file that is not an image of the read formats."""
    if not (head := _head(file)):
        return "is empty; pass another image"
    found = describe_kind(head, getattr(file, "name", None))
    return found or f"is not an image in one of the formats {', '.join(FORMATS)}"


def _head(file: BinaryIO) -> bytes:
    position = file.tell()
    file.seek(0)
    head = file.read(HEAD)
    file.seek(position)
    return head


def _read(
    image: Image.Image,
    file: BinaryIO | None,
    name: str,
    upright: bool,
    say: Say | None,
    stream: StreamDepth | None,
) -> NDArray[np.uint8]:
    notes = []
    if file is not None and isinstance(image, ImageFile.ImageFile):
        notes.append(spread_color(image, file, stream))
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise UsageError(f"{name} has floating-point pixels; save it with 8 bits per channel")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow uses either mode for 16-bit files
        gray, note = read_gray(image, file, stream)
        notes.append(note)
        pixels = gray[..., None].repeat(3, axis=2)
    else:
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for rows, part in crop_strips(image):
            pixels[rows] = np.asarray(_to_rgb(part))
    if say is not None:
        for note in (*notes, _note_frames(image)):
            if note is not None:
                say(f"{name} {note}")
    return pixels


def _note_frames(image: Image.Image) -> str | None:
    """Say that there are more frames; the further images in a phone's JPEG are views of the same scene."""
    with suppress(Exception):  # a further frame is damaged, the one that was read is not
        if image.format != "MPO" and getattr(image, "is_animated", False):
            return "has several frames; the first was read"
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
