"""Images that clients come back to."""

from __future__ import annotations

import secrets
from collections import OrderedDict

import numpy as np
import numpy.typing as npt


class ImageStore:
    """Keeps the last images by names that nobody guesses.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

    def add(self, image: npt.NDArray[np.uint8]) -> str:
        """Keep an image, in place of the one not asked for longest where there are too many; return its name."""
        name = secrets.token_urlsafe(12)
        self._kept[name] = image
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> npt.NDArray[np.uint8] | None:
        """Return an image; None where it is gone or never was."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def remove(self, name: str) -> bool:
        """Forget an image; return whether it was there."""
        return self._kept.pop(name, None) is not None
