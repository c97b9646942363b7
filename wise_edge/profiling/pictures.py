"""A user's own images, with what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError
from wise_edge.images import load_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def find_pictures(folder: Path) -> list[Path]:
    """Return a folder's images, in the order of their names; raises `UsageError` where it holds none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; --images names one with images")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return files


def read_pictures(files: Sequence[Path], query: str | None) -> list[Example]:
    """Read images; all of them are in memory then.

    Args:
        files: the images.
        query: asked of every one; None takes the words of the text file of the same name beside it (`mug.txt` for
            `mug.jpg`).

    Returns:
        Examples without a truth.

    Raises:
        UsageError: an image cannot be read, or has no words.
    """
    return [Example(file.name, query or _words(file), load_image(file), None, None, None, None, None) for file in files]


def _words(picture: Path) -> str:
    file = picture.with_suffix(".txt")
    try:
        words = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        words = ""
    if not words:
        raise UsageError(
            f"what is asked of {picture.name}? write it into {file}, or name one query for all with --query"
        )
    return words
