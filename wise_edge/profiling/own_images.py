"""A user's own images, with the query for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wise_edge.datasets.base import Example
from wise_edge.errors import UsageError, first_line
from wise_edge.files.documents import read_text
from wise_edge.images import Say, load_image
from wise_edge.policy.prompts import normalize_query

_MOST_BYTES = 100_000
"""Of a file with a query."""


def read_images(files: Sequence[Path], query: str | None, say: Say | None = None) -> list[Example]:
    """Read images into memory.

    Args:
        files: the images.
        query: the query for all of them; None reads each one's from the text file of the same name (`mug.txt` for
            `mug.jpg`).
        say: as of `load_image`.

    Returns:
        Examples without ground truth.

    Raises:
        UsageError: an image cannot be read, or has no query.
    """
    return [
        Example(file.name, _find_query(file, query), load_image(file, say=say), None, None, None, None)
        for file in files
    ]


def _find_query(image: Path, query: str | None) -> str:
    """Return the query for an image; raises `UsageError` if there is none or it cannot be asked."""
    if query is not None:
        return normalize_query(query)
    file = image.with_suffix(".txt")
    try:
        return normalize_query(read_text(file, _MOST_BYTES))
    except UsageError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        why = "has no query" if missing else f"has no query that can be asked: {first_line(error)}"
        raise UsageError(f"{image.name} {why}; write one to {file}, or pass one for all images with --query") from error
