"""The last images of a session, with what policy and segmenter made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.runtimes.base import MaskFrame, PolicyBackend, PolicyFrame


@dataclass(eq=False)
class CachedFrame:
    """An image that was asked.

    Attributes:
        image: a copy of it.
        policy: prepared for the policy.
        mask: prepared for the segmenter; None until it is.
    """

    image: npt.NDArray[np.uint8]
    policy: PolicyFrame
    mask: MaskFrame | None = None


class FrameCache:
    """Keeps the images that were asked last; the caller sees to it that one thread at a time asks.

    Args:
        most: how many.

    Raises:
        UsageError: none.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise UsageError(f"a session keeps at least one image, frames is {most}")
        self.most = most
        self._frames: list[CachedFrame] = []

    def find(self, image: npt.NDArray[np.uint8]) -> CachedFrame | None:
        """Return the frame of an image that is kept, which becomes the last one asked."""
        for frame in self._frames:
            if np.array_equal(frame.image, image):  # faster than a hash, and exact
                self._frames.remove(frame)
                self._frames.append(frame)
                return frame
        return None

    def enter(self, image: npt.NDArray[np.uint8], policy: PolicyBackend[PolicyFrame]) -> CachedFrame:
        """Return a new frame, prepared for the policy, in place of the one that was not asked for longest."""
        while len(self._frames) >= self.most:  # before the next is made: its memory is needed
            del self._frames[0]
        self._frames.append(CachedFrame(image.copy(), policy.encode(image)))
        return self._frames[-1]
