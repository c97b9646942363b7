"""Match depth images to color images by their stamps, for transports that deliver the two separately."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise
from statistics import median
from threading import Lock

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.robot.frames import Frame, Intrinsics, Place, find_place

_DEPTHS = 10
_SAME_NS = 20_000_000
"""Tolerance within which a depth image always matches a color image."""


class DepthCamera:
    """The last depth images and the camera's intrinsics; either may arrive before or after its color image."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: deque[tuple[int, npt.NDArray[np.float32]]] = deque(maxlen=_DEPTHS)  # by arrival: a bag may loop
        self._camera: tuple[Intrinsics, tuple[int, int]] | None = None

    def keep(self, stamp_ns: int, depth_m: npt.NDArray[np.float32]) -> None:
        """Keep a depth image, float32 [H, W] in m, and drop the oldest."""
        with self._lock:
            self._kept.append((stamp_ns, depth_m))

    def calibrate(self, camera: Intrinsics, size: tuple[int, int]) -> None:
        """Keep the intrinsics of images of a size (width, height) in pixels."""
        with self._lock:
            self._camera = camera, size

    def find_place(self, mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
        """Return where a mask of a frame is; None without intrinsics or without a depth image of that time.

        Raises:
            UsageError: depth or intrinsics belong to images of another size.
        """
        with self._lock:
            depth_m, camera = self._nearest(frame.stamp_ns), self._camera
        if depth_m is None or camera is None:
            return None
        height, width = mask.shape
        if camera[1] != (width, height):
            raise UsageError(
                f"camera_info is for {camera[1][0]} x {camera[1][1]} pixels, the image has {width} x {height}; "
                "remap camera_info to the topic next to the image's"
            )
        return find_place(mask, replace(frame, depth_m=depth_m, intrinsics=camera[0]))

    def _nearest(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the depth image nearest to a time, at most half of the usual interval away."""
        if not self._kept:
            return None
        intervals = [abs(later[0] - earlier[0]) for earlier, later in pairwise(self._kept)]
        within = max(_SAME_NS, median(intervals) / 2 if intervals else 0)
        kept_ns, depth_m = min(self._kept, key=lambda kept: abs(kept[0] - stamp_ns))
        return depth_m if abs(kept_ns - stamp_ns) <= within else None
