"""Frames of a robot's camera, and where in space a mask is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_number, describe
from wise_edge.errors import UsageError
from wise_edge.runtimes.tracking import Stamped

_INNER = (5.0, 95.0)
"""Percentiles of depth and extent that are kept: at an object's edges, depth images mix in the background."""
LEAST_POINTS = 16


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, in pixels of its image.

    Attributes:
        fx: horizontal focal length.
        fy: vertical focal length.
        cx: column of the principal point.
        cy: row of the principal point.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Raise `UsageError` if a value is no finite number or a focal length is not positive."""
        for name in self.__dataclass_fields__:
            check_number(getattr(self, name), name)
        if not (self.fx > 0 and self.fy > 0):
            raise UsageError(f"focal lengths must be positive, not {self.fx} and {self.fy}; calibrate the camera")


@dataclass(frozen=True, eq=False)
class Frame(Stamped):
    """A frame from the camera's driver; `Stamped` has its image and `stamp_s`.

    Attributes:
        stamp_ns: capture time in nanoseconds of the camera's clock; results carry it unchanged.
        frame_id: name of the camera's coordinate frame on the robot.
        depth_m: float32 [H, W] of the image, m along the optical axis, 0 or not finite if unknown; None without depth.
        intrinsics: intrinsics of the image; None if unknown.
    """

    stamp_ns: int
    frame_id: str = ""
    depth_m: npt.NDArray[np.float32] | None = None
    intrinsics: Intrinsics | None = None

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8], stamp_ns: int, frame_id: str = "", **more: Any) -> Frame:
        """Return a frame, with `stamp_s` computed from `stamp_ns`.

        Args:
            image: HWC uint8 RGB.
            stamp_ns: capture time in whole nanoseconds.
            frame_id: name of the camera's coordinate frame.
            more: `depth_m` and `intrinsics`.

        Raises:
            UsageError: an argument has another type, dtype or shape.
        """
        _check_stamp(stamp_ns)
        return cls(image, stamp_ns / 1e9, stamp_ns, frame_id, **more)

    def __post_init__(self) -> None:
        """Raise `UsageError` for an attribute of another type, dtype or shape."""
        super().__post_init__()
        _check_stamp(self.stamp_ns)
        if not isinstance(self.frame_id, str):
            raise UsageError(f"frame_id must be text, got {describe(self.frame_id)}")
        if not isinstance(self.intrinsics, Intrinsics | None):
            raise UsageError(f"intrinsics must be Intrinsics(fx, fy, cx, cy), got {describe(self.intrinsics)}")
        if self.depth_m is None:
            return
        if not isinstance(self.depth_m, np.ndarray) or not np.issubdtype(self.depth_m.dtype, np.floating):
            raise UsageError(
                f"depth_m must be float32 meters [H, W], got {describe(self.depth_m)}; divide millimeters by 1000"
            )
        if self.depth_m.shape != self.image.shape[:2]:
            raise UsageError(
                f"the depth image {list(self.depth_m.shape)} and the image {list(self.image.shape[:2])} "
                "differ in size; register the depth image to the color camera"
            )


def _check_stamp(stamp_ns: object) -> None:
    if not isinstance(stamp_ns, int | np.integer) or isinstance(stamp_ns, bool):
        raise UsageError(f"stamp_ns must be an integer of nanoseconds, got {describe(stamp_ns)}")
    if not -(1 << 63) <= stamp_ns < 1 << 63:
        raise UsageError(f"stamp_ns must fit into 64 bits, got {describe(stamp_ns)}")


@dataclass(frozen=True)
class Place:
    """Where a mask is, in m of the camera's optical frame: x right, y down, z forward (ROS REP 103).

    Attributes:
        center_m: mean of the mask's points.
        extent_m: distance from the 5th to the 95th percentile of the points along each axis.
        points: number of the mask's pixels that were used.
    """

    center_m: tuple[float, float, float]
    extent_m: tuple[float, float, float]
    points: int


def find_place(mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
    """Return where a mask is; None without depth or intrinsics, or if too few of its pixels have a depth.

    Pixels outside the middle 90 % of the mask's depths are left out.
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
