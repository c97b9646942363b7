"""What a robot's camera gives, and where in space a mask lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.runtimes.tracking import Stamped

_INNER = (5.0, 95.0)
"""Percentiles between which a thing's depth and extent lie: at its edges depth images mix it with what is behind."""
LEAST_POINTS = 16


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, in pixels of its image.

    Attributes:
        fx: focal length across.
        fy: focal length down.
        cx: principal point, across.
        cy: principal point, down.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Raise `UsageError` for focal lengths that are none."""
        if not (self.fx > 0 and self.fy > 0):
            raise UsageError(f"a camera's focal lengths are positive, these are {self.fx} and {self.fy}")


@dataclass(frozen=True, eq=False)
class Frame(Stamped):
    """A frame as the camera's driver gave it; `Stamped` has its image and `stamp_s`.

    Attributes:
        stamp_ns: when it was taken, in nanoseconds of the camera's clock; results carry it to the last digit.
        frame_id: the camera's coordinate frame, by the robot's own name for it.
        depth_m: float32 [H, W] of the image, m along the optical axis, 0 or not finite where unknown; None without.
        intrinsics: of the image; None where unknown.
    """

    stamp_ns: int
    frame_id: str = ""
    depth_m: npt.NDArray[np.float32] | None = None
    intrinsics: Intrinsics | None = None

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8], stamp_ns: int, frame_id: str = "", **more: Any) -> Frame:
        """Return a frame; its time in seconds is that in nanoseconds."""
        return cls(image, stamp_ns / 1e9, stamp_ns, frame_id, **more)

    def __post_init__(self) -> None:
        """Raise `UsageError` for a depth image of another size."""
        if self.depth_m is not None and self.depth_m.shape != self.image.shape[:2]:
            raise UsageError(
                f"the depth image {list(self.depth_m.shape)} has another size than the image "
                f"{list(self.image.shape[:2])}; register it to the color camera"
            )


@dataclass(frozen=True)
class Place:
    """Where a mask lies, in the camera's optical frame: x to the right, y down, z ahead (ROS REP 103), in m.

    Attributes:
        center_m: mean of the mask's points.
        extent_m: between the 5th and the 95th percentile of its points along each axis.
        points: pixels of the mask whose depth is known.
    """

    center_m: tuple[float, float, float]
    extent_m: tuple[float, float, float]
    points: int


def find_place(mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
    """Return where a mask lies; None without depth or intrinsics, or where too few of its pixels have a depth.

    Pixels whose depth lies outside the middle nine tenths of the mask's are left out.
    """
    if frame.depth_m is None or frame.intrinsics is None:
        return None
    rows, columns = np.nonzero(mask & np.isfinite(frame.depth_m) & (frame.depth_m > 0))
    depths = frame.depth_m[rows, columns].astype(np.float64)
    if len(depths) < LEAST_POINTS:
        return None
    low, high = np.percentile(depths, _INNER)
    inner = (depths >= low) & (depths <= high)
    z, u, v = depths[inner], columns[inner], rows[inner]
    camera = frame.intrinsics
    points = np.stack([(u - camera.cx) * z / camera.fx, (v - camera.cy) * z / camera.fy, z])
    edges = np.percentile(points, _INNER, axis=1)
    x, y, ahead = points.mean(axis=1).tolist()
    width, height, length = (edges[1] - edges[0]).tolist()
    return Place((x, y, ahead), (width, height, length), len(depths))
