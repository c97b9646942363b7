"""The picture with which the page opens, and queries on it that the embedded models answer."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

PATH = "/example.png"
QUERIES = {
    "the small dotted object": 2,
    "the ring below the star": 1,
    "the yellow star": 3,
    "the triangle above the purple object": 0,
}
"""What to ask, and the object of the scene that is meant."""
_SPLIT, _INDEX = "test", 187


def example_scene() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return the picture, HWC uint8 RGB, and the mask of each object, bool [objects, H, W]."""
    from wise_edge.scenes import sample

    scene = sample(_SPLIT, _INDEX).scene
    return scene.image, scene.masks


@cache
def example_png() -> bytes:
    """Return the picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(example_scene()[0]).save(buffer, "PNG")
    return buffer.getvalue()
