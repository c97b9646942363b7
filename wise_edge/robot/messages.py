"""ROS messages to frames, and results to ROS messages.

Messages are read by their fields, so that rclpy's, rospy's and rosbags' own classes serve alike; they are made by
classes that the caller brings. Encodings: https://docs.ros.org/en/api/sensor_msgs/html/image__encodings_8h_source.html.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.images import load_image
from wise_edge.robot.frames import Frame, Intrinsics
from wise_edge.robot.results import NodeResult

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DETECTIONS, TEXT, CAMERA = "vision_msgs/msg/Detection2DArray", "std_msgs/msg/String", "sensor_msgs/msg/CameraInfo"

VISION_MSGS = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\n"
        "string id\n"
    ),
    DETECTIONS: "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}
"""Definitions of vision_msgs 4 (Humble and later), which no distribution's standard set holds."""

_CHANNELS: dict[str, tuple[type[np.generic], int, tuple[int, ...]]] = {
    "rgb8": (np.uint8, 3, (0, 1, 2)),
    "bgr8": (np.uint8, 3, (2, 1, 0)),
    "rgba8": (np.uint8, 4, (0, 1, 2)),
    "bgra8": (np.uint8, 4, (2, 1, 0)),
    "mono8": (np.uint8, 1, (0, 0, 0)),
    "8UC1": (np.uint8, 1, (0, 0, 0)),
    "8UC3": (np.uint8, 3, (2, 1, 0)),
    "8UC4": (np.uint8, 4, (2, 1, 0)),
    "mono16": (np.uint16, 1, (0, 0, 0)),
}
"""Encoding to the type of its numbers, their count a pixel, and the places of red, green and blue; OpenCV's are BGR."""
_DEPTHS: dict[str, tuple[type[np.generic], float]] = {
    "16UC1": (np.uint16, 1e-3),
    "mono16": (np.uint16, 1e-3),
    "32FC1": (np.float32, 1.0),
}
"""Encoding of a depth picture to the type of its numbers and what makes m of them (ROS REP 118)."""

Make = Callable[..., Any]


class Messages(Protocol):
    """Where classes of messages come from."""

    def __getitem__(self, name: str) -> Make:
        """Return the class of a message by its full name, such as "sensor_msgs/msg/Image"."""
        ...


def to_frame(message: Any, topic: str) -> Frame:
    """Return the frame of an `Image` or `CompressedImage`.

    Raises:
        UsageError: its encoding is none that is read, or its data are not as long as it says.
    """
    compressed = hasattr(message, "format")
    image = _decode_compressed(message, topic) if compressed else decode_image(message, topic)
    return Frame.of(image, stamp_of(message.header), str(message.header.frame_id))


def stamp_of(header: Any) -> int:
    """Return a header's stamp in nanoseconds; ROS 1 calls its parts otherwise."""
    stamp = header.stamp
    nanoseconds = stamp.nanosec if hasattr(stamp, "nanosec") else stamp.nsecs
    return int(stamp.sec if hasattr(stamp, "sec") else stamp.secs) * 1_000_000_000 + int(nanoseconds)


def decode_image(message: Any, topic: str) -> npt.NDArray[np.uint8]:
    """Return the picture of an `Image`: uint8 RGB [H, W, 3]; of 16 bits the upper 8."""
    if message.encoding not in _CHANNELS:
        raise UsageError(
            f"{topic} has pictures encoded as {message.encoding}; wise-edge reads {', '.join(_CHANNELS)}: "
            "convert them, for example with image_proc"
        )
    dtype, channels, places = _CHANNELS[message.encoding]
    pixels = _unpack(message, dtype, channels, topic)
    if dtype is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., list(places)])


def decode_depth(message: Any, topic: str) -> npt.NDArray[np.float32]:
    """Return the depth picture of an `Image`: float32 [H, W], m."""
    if message.encoding not in _DEPTHS:
        raise UsageError(f"{topic} has depth encoded as {message.encoding}; wise-edge reads {', '.join(_DEPTHS)}")
    dtype, metres = _DEPTHS[message.encoding]
    depth: npt.NDArray[np.float32] = _unpack(message, dtype, 1, topic)[..., 0].astype(np.float32) * np.float32(metres)
    return depth


def to_intrinsics(message: Any) -> Intrinsics:
    """Return the intrinsics of a `CameraInfo`; ROS 1 spells its matrix with a capital."""
    matrix = message.k if hasattr(message, "k") else message.K
    return Intrinsics(float(matrix[0]), float(matrix[4]), float(matrix[2]), float(matrix[5]))


def to_mask_message(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return the mask as an `Image` of mono8, 0 and 255, of the frame's size; of size 0 where there is none."""
    mask = np.zeros((0, 0), np.uint8) if result.mask is None else result.mask.astype(np.uint8) * np.uint8(255)
    height, width = mask.shape
    return messages[IMAGE](
        header=header, height=height, width=width, encoding="mono8", is_bigendian=0, step=width, data=mask.ravel()
    )


def to_detections(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return box, query and score as a `Detection2DArray` of one detection, or of none; its id is the query."""
    found = [] if result.box is None else [_detection(result, header, messages)]
    return messages[DETECTIONS](header=header, detections=found)


def _detection(result: NodeResult, header: Any, messages: Messages) -> Any:
    if result.box is None:
        raise RuntimeError("a result without a box is no detection")
    left, top, right, bottom = result.box
    x, y, z = result.place.centre_m if result.place else (0.0, 0.0, 0.0)
    pose = messages["geometry_msgs/msg/Pose"](
        position=messages["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=messages["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    hypothesis = messages["vision_msgs/msg/ObjectHypothesisWithPose"](
        hypothesis=messages["vision_msgs/msg/ObjectHypothesis"](class_id=result.query, score=result.score or 0.0),
        pose=messages["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
    )
    centre = messages["vision_msgs/msg/Pose2D"](
        position=messages["vision_msgs/msg/Point2D"](x=(left + right) / 2, y=(top + bottom) / 2), theta=0.0
    )
    box = messages["vision_msgs/msg/BoundingBox2D"](
        center=centre, size_x=float(right - left), size_y=float(bottom - top)
    )
    return messages["vision_msgs/msg/Detection2D"](header=header, results=[hypothesis], bbox=box, id=result.query)


def _decode_compressed(message: Any, topic: str) -> npt.NDArray[np.uint8]:
    if "compressedDepth" in message.format:
        raise UsageError(f"{topic} has compressed depth; name the topic of the colour pictures")
    try:
        return load_image(bytes(message.data))
    except UsageError as error:
        raise UsageError(f"{topic}, {message.format or 'compressed'}: {error}") from error


def _unpack(message: Any, dtype: type[np.generic], channels: int, topic: str) -> npt.NDArray[Any]:
    """Return [H, W, channels], rows' padding left out, in this machine's order of bytes."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(bytes(message.data), np.uint8)
    row = width * channels * np.dtype(dtype).itemsize
    if height <= 0 or width <= 0 or step < row or data.size < height * step:
        raise UsageError(
            f"{topic}: a picture of {width} x {height} ({message.encoding}, {step} bytes a row) has {data.size} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, :row]
    order = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    pixels: npt.NDArray[Any] = np.ascontiguousarray(rows).view(order).reshape(height, width, channels)
    return pixels.astype(dtype)
