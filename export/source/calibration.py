"""Images and queries for calibration and comparison: the user's, or synthetic scenes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_text
from wise_edge.images import load_image
from wise_edge.images.sources import find_images
from wise_edge.policy.prompts import normalize_query
from wise_edge.scenes import sample

_SPLIT = "train"  # figures are reported on other scenes
_MOST_BYTES = 100_000  # of a file with queries


@dataclass(frozen=True)
class CalibrationSample:
    """One image and one query.

    Attributes:
        name: its name in messages.
        image: HWC uint8 RGB, any size.
        query: normalized.
    """

    name: str
    image: npt.NDArray[np.uint8]
    query: str


def read_calibration(folder: Path | None, count: int) -> list[CalibrationSample]:
    """Return samples to calibrate and compare with.

    Args:
        folder: images, each with a text file of the same name that holds one query per line; None uses scenes.
        count: at most this many.

    Raises:
        UsageError: the folder has no image, or an image has no query.
    """
    if folder is None:
        scenes = (sample(_SPLIT, number) for number in range(count))
        return [CalibrationSample(f"scene {n}", s.scene.image, s.request) for n, s in enumerate(scenes)]
    images = find_images(folder)
    named = ((file, query) for file in images for query in _queries(file))
    return [CalibrationSample(file.name, load_image(file), query) for file, query in islice(named, count)]


def _queries(image: Path) -> list[str]:
    file = image.with_suffix(".txt")
    remedy = f"write the queries for {image.name} into it, one per line"
    lines = read_text(file, _MOST_BYTES, remedy).splitlines()
    queries = [normalize_query(line) for line in lines if line.strip()]
    if not queries:
        raise UsageError(f"{file} is empty; {remedy}")
    return queries
