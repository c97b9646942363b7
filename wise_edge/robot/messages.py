"""Convert ROS messages to frames, and results to ROS messages.

Messages are read by their fields, so that classes of rclpy, rospy and rosbags all work; they are created by classes
that the caller passes. Encodings: https://docs.ros.org/en/api/sensor_msgs/html/image__encodings_8h_source.html.
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
DETECTIONS, DETECTIONS_3D = "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/Detection3DArray"
TEXT, CAMERA = "std_msgs/msg/String", "sensor_msgs/msg/CameraInfo"

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
    "vision_msgs/msg/BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "vision_msgs/msg/Detection3D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox3D bbox\n"
        "string id\n"
    ),
    DETECTIONS_3D: "std_msgs/Header header\nvision_msgs/Detection3D[] detections\n",
}
"""Definitions of vision_msgs 4 (Humble and later), which is not in any distribution's standard set."""

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
    "rgb16": (np.uint16, 3, (0, 1, 2)),
    "bgr16": (np.uint16, 3, (2, 1, 0)),
}
"""Encoding to dtype, channels per pixel, and channel indices of red, green and blue; OpenCV's encodings are BGR."""
_YUV = {"yuv422": (1, 0, 2), "uyvy": (1, 0, 2), "yuv422_yuy2": (0, 1, 3), "yuyv": (0, 1, 3)}
"""Encoding of two pixels in four bytes to the byte indices of the first Y, of U and of V."""
_BAYER = {"bayer_rggb8": (0, 3), "bayer_bggr8": (3, 0), "bayer_gbrg8": (2, 1), "bayer_grbg8": (1, 2)}
"""Encoding to the indices of red and blue among the four pixels of a tile, in row order."""
READ = (*_CHANNELS, *_YUV, *_BAYER)
"""Supported encodings of color images."""
_DEPTHS: dict[str, tuple[type[np.generic], float]] = {
    "16UC1": (np.uint16, 1e-3),
    "mono16": (np.uint16, 1e-3),
    "32FC1": (np.float32, 1.0),
}
"""Encoding of a depth image to its dtype and its unit in m (ROS REP 118)."""

Make = Callable[..., Any]


class Messages(Protocol):
    """A source of message classes."""

    def __getitem__(self, name: str) -> Make:
        """Return a message class by its full name, such as "sensor_msgs/msg/Image"."""
        ...


def to_frame(message: Any, topic: str) -> Frame:
    """Return the frame of an `Image` or `CompressedImage`.

    Raises:
        UsageError: its encoding is not supported, or its data are shorter than its size.
    """
    compressed = hasattr(message, "format")
    image = _decode_compressed(message, topic) if compressed else decode_image(message, topic)
    return Frame.of(image, stamp_of(message.header), str(message.header.frame_id))


def stamp_of(header: Any) -> int:
    """Return a header's stamp in nanoseconds; ROS 1 names its fields differently."""
    stamp = header.stamp
    nanoseconds = stamp.nanosec if hasattr(stamp, "nanosec") else stamp.nsecs
    return int(stamp.sec if hasattr(stamp, "sec") else stamp.secs) * 1_000_000_000 + int(nanoseconds)


def decode_image(message: Any, topic: str) -> npt.NDArray[np.uint8]:
    """Return the image of an `Image`: uint8 RGB [H, W, 3]; of 16-bit channels, the upper 8 bits."""
    if message.encoding not in READ:
        raise UsageError(
            f"{topic} has images encoded as {message.encoding}; convert them, for example with image_proc, to one of "
            f"{', '.join(READ)}"
        )
    if message.encoding in _YUV:
        return _decode_yuv(_unpack(message, np.uint8, 2, topic), *_YUV[message.encoding], topic)
    if message.encoding in _BAYER:
        return _decode_bayer(_unpack(message, np.uint8, 1, topic)[..., 0], *_BAYER[message.encoding])
    dtype, channels, places = _CHANNELS[message.encoding]
    pixels = _unpack(message, dtype, channels, topic)
    if dtype is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if places == (0, 1, 2) and channels == 3:
        return np.ascontiguousarray(pixels)
    return np.stack([pixels[..., place] for place in places], axis=-1)  # 7x faster than indexing with a list


def decode_depth(message: Any, topic: str) -> npt.NDArray[np.float32]:
    """Return the depth image of an `Image`: float32 [H, W], m."""
    if message.encoding not in _DEPTHS:
        raise UsageError(f"{topic} has depth encoded as {message.encoding}; supported are {', '.join(_DEPTHS)}")
    dtype, meters = _DEPTHS[message.encoding]
    depth: npt.NDArray[np.float32] = _unpack(message, dtype, 1, topic)[..., 0].astype(np.float32) * np.float32(meters)
    return depth


def to_intrinsics(message: Any) -> Intrinsics:
    """Return the intrinsics of a `CameraInfo`, for the rectified image; ROS 1 names its matrix P, ROS 2 p.

    Raises:
        UsageError: the camera is not calibrated, so its matrix holds zeros.
    """
    matrix = message.p if hasattr(message, "p") else message.P
    return Intrinsics(float(matrix[0]), float(matrix[5]), float(matrix[2]), float(matrix[6]))


def to_mask_message(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return the mask as a mono8 `Image` of the frame's size, 0 and 255; all 0 if nothing was found."""
    width, height = result.image_size
    pixels = result.mask_image().ravel()
    return messages[IMAGE](
        header=header, height=height, width=width, encoding="mono8", is_bigendian=0, step=width, data=pixels
    )


def to_detections(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return box, query and score as a `Detection2DArray` of at most one detection; its id is the query."""
    found = [] if result.box is None else [_detection(result, header, messages)]
    return messages[DETECTIONS](header=header, detections=found)


def to_detections_3d(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return place and extent in the camera's frame as a `Detection3DArray`; it is empty without a place."""
    if result.place is None:
        return messages[DETECTIONS_3D](header=header, detections=[])
    width, height, length = result.place.extent_m
    box = messages["vision_msgs/msg/BoundingBox3D"](
        center=_pose(result, messages), size=messages["geometry_msgs/msg/Vector3"](x=width, y=height, z=length)
    )
    found = messages["vision_msgs/msg/Detection3D"](
        header=header, results=[_hypothesis(result, messages)], bbox=box, id=result.query
    )
    return messages[DETECTIONS_3D](header=header, detections=[found])


def _detection(result: NodeResult, header: Any, messages: Messages) -> Any:
    if result.box is None:
        raise RuntimeError("a result without a box is no detection")
    left, top, right, bottom = result.box
    center = messages["vision_msgs/msg/Pose2D"](
        position=messages["vision_msgs/msg/Point2D"](x=(left + right) / 2, y=(top + bottom) / 2), theta=0.0
    )
    box = messages["vision_msgs/msg/BoundingBox2D"](
        center=center, size_x=float(right - left), size_y=float(bottom - top)
    )
    return messages["vision_msgs/msg/Detection2D"](
        header=header, results=[_hypothesis(result, messages)], bbox=box, id=result.query
    )


def _hypothesis(result: NodeResult, messages: Messages) -> Any:
    """Return query, score and pose; if the place is unknown, covariance[0] is -1, as in sensor_msgs/Imu."""
    covariance = np.zeros(36)
    covariance[0] = -1.0 if result.place is None else 0.0
    return messages["vision_msgs/msg/ObjectHypothesisWithPose"](
        hypothesis=messages["vision_msgs/msg/ObjectHypothesis"](class_id=result.query, score=result.score or 0.0),
        pose=messages["geometry_msgs/msg/PoseWithCovariance"](pose=_pose(result, messages), covariance=covariance),
    )


def _pose(result: NodeResult, messages: Messages) -> Any:
    x, y, z = result.place.center_m if result.place else (0.0, 0.0, 0.0)
    return messages["geometry_msgs/msg/Pose"](
        position=messages["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=messages["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )


def _decode_compressed(message: Any, topic: str) -> npt.NDArray[np.uint8]:
    if "compressedDepth" in message.format:
        raise UsageError(f"{topic} has compressed depth; pass the topic of the color images")
    try:
        return load_image(bytes(message.data), upright=False)  # in the orientation of the camera's depth and intrinsics
    except UsageError as error:
        raise UsageError(f"{topic}, {message.format or 'compressed'}: {error}") from error


def _unpack(message: Any, dtype: type[np.generic], channels: int, topic: str) -> npt.NDArray[Any]:
    """Return [H, W, channels] without the rows' padding, in native byte order."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    row = width * channels * np.dtype(dtype).itemsize
    if height <= 0 or width <= 0 or step < row or data.size < height * step:
        raise UsageError(
            f"{topic}: an image of {width} x {height} ({message.encoding}, {step} bytes per row) has {data.size} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, :row]
    order = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    pixels: npt.NDArray[Any] = np.ascontiguousarray(rows).view(order).reshape(height, width, channels)
    return pixels.astype(dtype)  # a copy, because the message's memory may be reused


def _decode_yuv(pairs: npt.NDArray[np.uint8], luma: int, u: int, v: int, topic: str) -> npt.NDArray[np.uint8]:
    """Return RGB of 4:2:2 YUV [H, W, 2] (ITU-R BT.601, limited range 16 to 235, as in OpenCV)."""
    height, width, _ = pairs.shape
    if width % 2:
        raise UsageError(f"{topic}: a YUV 4:2:2 image must have an even width, not {width}")
    tiles = pairs.reshape(height, width // 2, 4).astype(np.int32)
    bright = 298 * (tiles[..., luma::2] - 16) + 128
    blue, red = (tiles[..., place, None] - 128 for place in (u, v))
    rgb = np.stack([bright + 409 * red, bright - 100 * blue - 208 * red, bright + 516 * blue], axis=-1) >> 8
    found: npt.NDArray[np.uint8] = rgb.clip(0, 255).astype(np.uint8).reshape(height, width, 3)
    return found


def _decode_bayer(mosaic: npt.NDArray[np.uint8], red: int, blue: int) -> npt.NDArray[np.uint8]:
    """Return RGB of a Bayer mosaic [H, W] at half the resolution: all four pixels of a tile get its color."""
    height, width = mosaic.shape
    even = np.pad(mosaic, ((0, height % 2), (0, width % 2)), mode="edge")
    tiles = [even[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    first, second = (tiles[place] for place in range(4) if place not in (red, blue))
    green = ((first.astype(np.uint16) + second) // 2).astype(np.uint8)
    half = np.stack([tiles[red], green, tiles[blue]], axis=-1)
    return np.ascontiguousarray(half.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])
