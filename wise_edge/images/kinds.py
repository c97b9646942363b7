"""What a file that is not one of the read kinds of images is, and how to make an image of it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from PIL import Image

HEAD = 512
"""Number of bytes at a file's start by which its kind is known."""
_MAGICK = "convert it: magick {name} {png}"
_MAGICK_8 = "convert it to 8 bits: magick {name} -depth 8 {png}"
_RAW = "develop it to TIFF or PNG: darktable-cli {name} {png}"
_FRAME = (
    "follow the object through it: wise-edge track {name} QUERY; or take a frame: ffmpeg -i {name} -frames:v 1 {png}"
)
_AVIF = "convert it, for example: avifdec {name} {png}; or update Pillow, whose version 11.3 and later reads it"
_HEIC = "convert it, for example: heif-convert {name} {jpg}, or on a Mac: sips -s format jpeg {name} --out {jpg}"

_BRANDS = {
    b"avif": ("an AVIF image", _AVIF),
    b"avis": ("an AVIF image", _AVIF),
    b"crx ": ("a camera's raw image (CR3)", _RAW),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), ("a HEIC image", _HEIC)),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1"), ("a HEIF image", _HEIC)),
}
"""Major brand of an ISO base media file (https://mp4ra.org/registered-types/brands) to kind and remedy; others are
videos."""
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"\0MRM", b"FOVb")
"""Of raw images that are no TIFF files."""
_STARTS = (
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", "convert it: djxl {name} {png}"),
    (0, b"\xff\x0a", "a JPEG XL image", "convert it: djxl {name} {png}"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _MAGICK),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _MAGICK),
    (0, b"\x89PNG", "a damaged PNG image", "save it again"),
    (0, b"\xff\xd8\xff", "a damaged JPEG image", "save it again"),
    (0, b"GIF8", "a damaged GIF image", "save it again"),
    (8, b"WEBP", "a damaged WebP image", "save it again"),
    (0, b"II*\0", "a TIFF image of an unusual kind", _MAGICK_8),
    (0, b"MM\0*", "a TIFF image of an unusual kind", _MAGICK_8),
    (0, b"8BPS", "a Photoshop document", _MAGICK),
    (0, b"v/1\x01", "an OpenEXR image", _MAGICK),
    (0, b"#?RADIANCE", "a Radiance HDR image", _MAGICK),
    (0, b"DDS ", "a DirectDraw texture", _MAGICK),
    (0, b"\0\0\x01\0", "an icon", _MAGICK),
    (128, b"DICM", "a DICOM image", "convert it: dcmj2pnm +on {name} {png}"),
    *((0, start, "a camera's raw image", _RAW) for start in _RAW_STARTS),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _FRAME),
    (8, b"AVI ", "a video (AVI)", _FRAME),
    (0, b"OggS", "a video or sound (Ogg)", _FRAME),
    (0, b"FLV\x01", "a video (FLV)", _FRAME),
    (0, b"\0\0\x01\xba", "a video (MPEG)", _FRAME),
    (0, b"\0\0\x01\xb3", "a video (MPEG)", _FRAME),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)", _FRAME),
    (4, b"moov", "a video (QuickTime)", _FRAME),
    (4, b"mdat", "a video (QuickTime)", _FRAME),
    (0, b"%PDF", "a PDF document", "render a page of it: pdftoppm -png -r 150 {name} {stem}"),
    (0, b"%!PS", "a PostScript drawing", _MAGICK),
    (0, b"\x93NUMPY", "a numpy array", "pass the array to Session.segment in Python, or save it as PNG"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it, and pass an image file"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it, and pass an image file"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the image", "fetch the image: git lfs pull"),
)
"""Place and bytes by which a file is known, its kind, and how to make an image of it."""
_SUFFIXES = {".tga": ("a Targa image", _MAGICK), ".svgz": ("an SVG drawing", "render it: rsvg-convert {name} -o {png}")}
"""Kinds that have no bytes to be known by."""
_RAW_SUFFIXES = (".dng", ".cr2", ".nef", ".nrw", ".arw", ".sr2", ".pef", ".3fr", ".iiq", ".srw", ".erf")
_RAW_TAGS = (50706, 33421)
"""DNGVersion (https://helpx.adobe.com/camera-raw/digital-negative.html) and CFARepeatPatternDim."""
_NEW_SUBFILE_TYPE, _SUB_IFDS, _REDUCED = 254, 330, 1


def describe_kind(head: bytes, path: str | None) -> str | None:
    """Say what a file is and how to make an image of it.

    Args:
        head: the first `HEAD` bytes of the file.
        path: the file, for its suffix and the command in the message; None if it is not known.

    Returns:
        "is KIND, which is not read; REMEDY", None if the kind is not known.
    """
    found = _find_kind(head, Path(path or "").suffix.lower())
    return None if found is None else _describe(*found, path)


def describe_raw(image: Image.Image, head: bytes, path: str | None) -> str | None:
    """Say the same of a camera's raw image that is a TIFF file, of which Pillow reads a thumbnail or the bare mosaic.

    Args:
        image: an opened image.
        head: as of `describe_kind`.
        path: as of `describe_kind`.

    Returns:
        None for all other images.
    """
    if image.format != "TIFF":
        return None
    tags = getattr(image, "tag_v2", {})
    thumbnail = _SUB_IFDS in tags and int(tags.get(_NEW_SUBFILE_TYPE, 0)) & _REDUCED
    named = Path(path or "").suffix.lower() in _RAW_SUFFIXES
    raw = thumbnail or named or head[8:10] == b"CR" or any(tag in tags for tag in _RAW_TAGS)
    return _describe("a camera's raw image", _RAW, path) if raw else None


def _describe(kind: str, remedy: str, path: str | None) -> str:
    name = path or "FILE"
    wanted = [str(Path(name).with_suffix(suffix)) for suffix in ("", ".png", ".jpg")]
    # A file may have the name of what it should be converted to.
    stem, png, jpg = (quote(out if out != name else str(Path(out).with_stem("converted"))) for out in wanted)
    return f"is {kind}, which is not read; {remedy.format(name=quote(name), stem=stem, png=png, jpg=jpg)}"


def _find_kind(head: bytes, suffix: str) -> tuple[str, str] | None:
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12]) or ("a video (MP4 or QuickTime)", _FRAME)
    for place, start, kind, remedy in _STARTS:
        if head[place : place + len(start)] == start:
            return kind, remedy
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "a video (MPEG transport stream)", _FRAME
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG drawing", "render it: rsvg-convert {name} -o {png}"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the image", "download the image itself"
    return _SUFFIXES.get(suffix)
