"""Uploaded images that clients query again."""

from __future__ import annotations

import secrets
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import MAX_KEPT_BYTES


class ImageStore:
    """Keeps the most recently used images under names that cannot be guessed.

    Args:
        most: how many images to keep, if they take less than `MAX_KEPT_BYTES`; the latest is kept whatever it takes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._kept)

    def add(self, image: npt.NDArray[np.uint8]) -> str:
        """Store an image and return its name; if there are too many, the least recently used are dropped."""
        name = secrets.token_urlsafe(12)
        self._kept[name] = image
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._bytes() > MAX_KEPT_BYTES):
            self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> npt.NDArray[np.uint8] | None:
        """Return an image; None if it was dropped or never stored."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def remove(self, name: str) -> bool:
        """Delete an image; return whether it was stored."""
        return self._kept.pop(name, None) is not None

    def _bytes(self) -> int:
        return sum(image.nbytes for image in self._kept.values())
