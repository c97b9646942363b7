"""The latest images of a session, as policy and segmenter encoded them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import MAX_KEPT_BYTES, check_count
from wise_edge.geometry import Size
from wise_edge.policy.picture import Grid
from wise_edge.runtimes.base import MaskImage, PolicyImage


@dataclass(eq=False)
class CachedImage:
    """An image that was asked about.

    Attributes:
        pixels: its own, which do not change, HWC uint8 RGB.
        grid: columns and rows of image tokens as which the policy saw it.
        policy: encoded for the policy.
        mask: encoded for the segmenter; None until it is.
    """

    pixels: npt.NDArray[np.uint8]
    grid: Grid
    policy: PolicyImage
    mask: MaskImage | None = None

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


class ImageCache:
    """Keeps the latest images; the caller ensures that only one thread at a time uses it.

    Args:
        most: how many images, if their pixels take less than `MAX_KEPT_BYTES`; the latest is kept whatever it takes.

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
            # Faster than a hash, and exact.
            if image.pixels is pixels or np.array_equal(image.pixels, pixels):
                self._images.remove(image)
                self._images.append(image)
                return image
        return None

    def remove(self, image: CachedImage) -> None:
        """Drop an image that is kept."""
        self._images.remove(image)

    def make_room(self, image: npt.NDArray[np.uint8]) -> None:
        """Drop the oldest images if there is no room for another; call it before encoding, which needs the memory."""
        while self._images and (len(self._images) >= self._most or self._bytes() + image.nbytes > MAX_KEPT_BYTES):
            del self._images[0]

    def add(self, image: CachedImage) -> None:
        """Keep an image as the latest one."""
        self.make_room(image.pixels)
        self._images.append(image)

    def clear(self) -> None:
        """Drop all images."""
        self._images.clear()

    def _bytes(self) -> int:
        return sum(image.pixels.nbytes for image in self._images)
