"""The latest images of a session, as policy and segmenter encoded them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_count
from wise_edge.geometry import Size
from wise_edge.runtimes.base import MaskImage, PolicyImage


@dataclass(eq=False)
class CachedImage:
    """An image that was asked about.

    Attributes:
        pixels: a copy of it, HWC uint8 RGB.
        policy: encoded for the policy.
        mask: encoded for the segmenter; None until it is.
    """

    pixels: npt.NDArray[np.uint8]
    policy: PolicyImage
    mask: MaskImage | None = None

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


class ImageCache:
    """Keeps the latest images; the caller ensures that only one thread at a time uses it.

    Args:
        most: how many images.

    Raises:
        UsageError: `most` is below 1.
    """

    def __init__(self, most: int) -> None:
        check_count(most, "frames")
        self._most = most
        self._images: list[CachedImage] = []

    def find(self, pixels: npt.NDArray[np.uint8]) -> CachedImage | None:
        """Return an image that is kept, which becomes the latest one."""
        for image in self._images:
            if np.array_equal(image.pixels, pixels):  # faster than a hash, and exact
                self._images.remove(image)
                self._images.append(image)
                return image
        return None

    def make_room(self) -> None:
        """Drop the oldest image if the cache is full; call it before encoding, which needs the memory."""
        while len(self._images) >= self._most:
            del self._images[0]

    def add(self, image: CachedImage) -> None:
        """Keep an image as the latest one."""
        self.make_room()
        self._images.append(image)

    def clear(self) -> None:
        """Drop all images."""
        self._images.clear()
