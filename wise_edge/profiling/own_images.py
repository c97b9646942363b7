"""A user's own images, with the query for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError
from wise_edge.images import SUFFIXES, load_image


def find_images(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name; raises `UsageError` if there are none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; pass a folder of images to --images")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"{folder} contains no images; their names end in {', '.join(SUFFIXES)}")
    return files


def read_images(files: Sequence[Path], query: str | None) -> list[Example]:
    """Read images into memory.

    Args:
        files: the images.
        query: the query for all of them; None reads each one's from the text file of the same name (`mug.txt` for
            `mug.jpg`).

    Returns:
        Examples without ground truth.

    Raises:
        UsageError: an image cannot be read, or has no query.
    """
    return [
        Example(file.name, query or _read_query(file), load_image(file), None, None, None, None, None) for file in files
    ]


def _read_query(image: Path) -> str:
    file = image.with_suffix(".txt")
    try:
        query = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        query = ""
    if not query:
        raise UsageError(f"{image.name} has no query; write one to {file}, or pass one for all images with --query")
    return query
