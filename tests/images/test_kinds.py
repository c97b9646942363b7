"""Files that people pass as images and that are not read are named as what they are, with a remedy."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin, features

from wise_edge.errors import UsageError
from wise_edge.images import load_image


def container(brand: bytes, *compatible: bytes) -> bytes:
    """The start of an ISO base media file: HEIC, AVIF, CR3 or a video."""
    brands = brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(200)


KINDS = {
    "IMG_1.heic": (container(b"heic", b"mif1", b"heic"), "a HEIC image", "heif-convert"),
    "IMG_2.jpg": (container(b"heix", b"mif1", b"heix"), "a HEIC image", "heif-convert"),
    "x.heif": (container(b"mif1", b"mif1", b"heic"), "a HEIF image", "heif-convert"),
    "x.cr3": (container(b"crx "), "a camera's raw image", "darktable-cli"),
    "clip.mp4": (container(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), "a video", "ffmpeg -i"),
    "clip.mov": (container(b"qt  ", b"qt  "), "a video", "ffmpeg -i"),
    "clip.mkv": (b"\x1a\x45\xdf\xa3" + bytes(60), "a video", "ffmpeg -i"),
    "clip.avi": (b"RIFF\x10\0\0\0AVI LIST", "a video", "ffmpeg -i"),
    "clip.ts": ((b"\x47" + bytes(187)) * 3, "a video", "ffmpeg -i"),
    "x.jxl": (b"\xff\x0a" + bytes(60), "a JPEG XL image", "djxl"),
    "y.jxl": (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "a JPEG XL image", "djxl"),
    "x.jp2": (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a", "a JPEG 2000 image", "magick"),
    "x.svg": (
        b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        "SVG",
        "rsvg",
    ),
    "x.psd": (b"8BPS\0\1" + bytes(60), "a Photoshop document", "magick"),
    "x.exr": (b"v/1\x01" + bytes(60), "an OpenEXR image", "magick"),
    "x.tga": (bytes(60), "a Targa image", "magick"),
    "x.dcm": (bytes(128) + b"DICM" + bytes(60), "a DICOM image", "dcmj2pnm"),
    "x.raf": (b"FUJIFILMCCD-RAW 0201", "a camera's raw image", "darktable-cli"),
    "x.pdf": (b"%PDF-1.7\n", "a PDF document", "pdftoppm"),
    "x.npy": (b"\x93NUMPY\x01\0", "a numpy array", "Session.segment"),
    "x.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "y.png": (b"\n<!DOCTYPE html><html><body>Not Found</body></html>", "a web page", "download the image"),
    "x.zip": (b"PK\x03\x04" + bytes(60), "a zip archive", "unpack"),
    "odd.tif": (b"MM\0*\0\0\0\x08\0\0" + bytes(60), "a TIFF image of an unusual kind", "-depth 8"),
    "cut.png": (b"\x89PNG\r\n\x1a\n\0", "a damaged PNG image", "save it again"),
}


def rejection(source: Path | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_named_with_its_remedy(name: str, tmp_path: Path) -> None:
    content, kind, remedy = KINDS[name]
    path = tmp_path / name
    path.write_bytes(content)
    message = rejection(path)
    assert f"{path} is " in message and kind in message and remedy in message
    if not name.endswith(".tga"):  # which only its name tells
        assert kind in rejection(content)


def test_a_command_quotes_the_name_and_names_another_output(tmp_path: Path) -> None:
    path = tmp_path / "of the phone.heic"
    path.write_bytes(container(b"heic"))
    assert f"heif-convert '{path}' '{tmp_path}/of the phone.jpg'" in rejection(path)


def test_a_command_does_not_write_into_its_input(tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.jpg"
    path.write_bytes(container(b"heic"))
    assert f"heif-convert {path} {tmp_path}/converted.jpg" in rejection(path)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "a.png is empty" in rejection(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("a.dng", {50706: b"\1\4\0\0", 254: 1}),
        ("b.tif", {50706: b"\1\4\0\0"}),
        ("c.nef", {}),
        ("d.tif", {254: 1, 330: 8}),
        ("e.tif", {33421: (2, 2)}),
    ],
)
def test_the_thumbnail_of_a_raw_image_is_not_taken_for_the_image(
    name: str, tags: dict[int, int | bytes], tmp_path: Path
) -> None:
    entries = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        entries[tag] = value
        entries.tagtype[tag] = {330: 4, 254: 4, 33421: 3}.get(tag, 1)
    Image.new("RGB", (16, 12)).save(tmp_path / name, "TIFF", tiffinfo=entries)
    assert "a camera's raw image" in rejection(tmp_path / name) and "darktable-cli" in rejection(tmp_path / name)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read_where_pillow_reads_it() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(buffer, "AVIF", quality=90)
    assert load_image(buffer.getvalue()).shape == (24, 32, 3)


def test_avif_is_named_where_pillow_does_not_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wise_edge.images.FORMATS", ("PNG", "JPEG"))
    message = rejection(container(b"avif", b"avif", b"mif1"))
    assert "an AVIF image" in message and "avifdec" in message


def test_a_caller_is_told_of_further_frames(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (4, 4), 255)])
    notes: list[str] = []
    assert (load_image(path, say=notes.append) == 0).all()
    assert notes == [f"{path} has several frames; the first was read"]
