"""Convert ROS messages to frames.

Messages are read by their fields, so that classes of rclpy, rospy and rosbags all work. Encodings:
https://github.com/ros2/common_interfaces/blob/rolling/sensor_msgs/include/sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_size
from wise_edge.errors import UsageError
from wise_edge.images import load_image
from wise_edge.images.depth import StreamDepth
from wise_edge.images.strips import strips
from wise_edge.robot.frames import Frame, Intrinsics

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA = "sensor_msgs/msg/CameraInfo"

_RGB, _BGR, _GRAY = (0, 1, 2), (2, 1, 0), (0, 0, 0)
_CHANNELS: dict[str, tuple[type[np.uint8 | np.uint16], int, tuple[int, ...]]] = {
    "rgb8": (np.uint8, 3, _RGB),
    "bgr8": (np.uint8, 3, _BGR),
    "rgba8": (np.uint8, 4, _RGB),
    "bgra8": (np.uint8, 4, _BGR),
    "mono8": (np.uint8, 1, _GRAY),
    "8UC1": (np.uint8, 1, _GRAY),
    "8UC3": (np.uint8, 3, _BGR),
    "8UC4": (np.uint8, 4, _BGR),
    "mono16": (np.uint16, 1, _GRAY),
    "rgb16": (np.uint16, 3, _RGB),
    "bgr16": (np.uint16, 3, _BGR),
    "rgba16": (np.uint16, 4, _RGB),
    "bgra16": (np.uint16, 4, _BGR),
    "16UC1": (np.uint16, 1, _GRAY),
    "16UC3": (np.uint16, 3, _BGR),
    "16UC4": (np.uint16, 4, _BGR),
}
"""Encoding to dtype, channels per pixel, and channel indices of red, green and blue; OpenCV's encodings are BGR."""
_YUV = {"yuv422": (1, 0, 2), "uyvy": (1, 0, 2), "yuv422_yuy2": (0, 1, 3), "yuyv": (0, 1, 3), "yvyu": (0, 3, 1)}
"""Encoding of two pixels in four bytes to the byte indices of the first Y, of U and of V."""
_PLANES = {"nv12": (2, 0), "nv21": (2, 1), "nv24": (1, 0)}
"""Encoding in two planes to the pixels in either direction that share U and V, and the place of U before or after V
(https://www.kernel.org/doc/html/latest/userspace-api/media/v4l/pixfmt-yuv-planar.html)."""
_PATTERNS = {"rggb": (0, 3), "bggr": (3, 0), "gbrg": (2, 1), "grbg": (1, 2)}
"""Bayer pattern to the indices of red and blue among the four pixels of a tile, in row order."""
_BAYER: dict[str, tuple[type[np.uint8 | np.uint16], int, int]] = {
    f"bayer_{pattern}{bits}": (dtype, *places)
    for bits, dtype in ((8, np.uint8), (16, np.uint16))
    for pattern, places in _PATTERNS.items()
}
READ = (*_CHANNELS, *_YUV, *_PLANES, *_BAYER)
"""Supported encodings of color images."""
_KNOWN = {encoding.lower(): encoding for encoding in READ}
"""Drivers write YUV's encodings in either case."""
_LONGEST_NAME = 60  # characters that are read of an encoding, such as "16UC1; compressedDepth png"
_VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9")
_DEPTHS: dict[str, tuple[type[np.generic], float]] = {
    "16UC1": (np.uint16, 1e-3),
    "mono16": (np.uint16, 1e-3),
    "32FC1": (np.float32, 1.0),
}
"""Encoding of a depth image to its dtype and its unit in m (ROS REP 118)."""


def to_frame(message: Any, topic: str, depth: StreamDepth | None = None) -> Frame:
    """Return the frame of an `Image` or `CompressedImage`.

    Args:
        message: the message.
        topic: where it comes from, for messages to people.
        depth: of the topic's images, kept from one to the next.

    Raises:
        UsageError: its encoding is not supported, or its data do not match its size.
    """
    depth = depth or StreamDepth()
    compressed = hasattr(message, "format")
    image = _decode_compressed(message, topic, depth) if compressed else decode_image(message, topic, depth)
    return Frame.of(image, stamp_of(message.header), str(message.header.frame_id))


def stamp_of(header: Any) -> int:
    """Return a header's stamp in nanoseconds; ROS 1 names its fields differently."""
    stamp = header.stamp
    nanoseconds = stamp.nanosec if hasattr(stamp, "nanosec") else stamp.nsecs
    return int(stamp.sec if hasattr(stamp, "sec") else stamp.secs) * 1_000_000_000 + int(nanoseconds)


def decode_image(message: Any, topic: str, depth: StreamDepth | None = None) -> npt.NDArray[np.uint8]:
    """Return the image of an `Image`: uint8 RGB [H, W, 3].

    Of 16-bit channels, these are the upper 8 of as many bits as the topic's images use, since cameras of 10 to 14 bits
    store their values unscaled.
    """
    depth = depth or StreamDepth()
    encoding = _KNOWN.get(message.encoding.lower(), message.encoding)
    if encoding in _YUV:
        return _decode_packed(_unpack(message, np.uint8, 2, topic), *_YUV[encoding], topic)
    if encoding in _PLANES:
        return _decode_planes(message, *_PLANES[encoding], topic)
    if encoding in _BAYER:
        dtype, red, blue = _BAYER[encoding]
        return _decode_bayer(_to_8_bits(_unpack(message, dtype, 1, topic)[..., 0], depth), red, blue)
    if encoding not in _CHANNELS:
        named = f"encoded as {encoding[:_LONGEST_NAME]}" if encoding else "without an encoding"
        raise UsageError(
            f"{topic} has images {named}; convert them, for example with image_proc, to one of {', '.join(READ)}"
        )
    dtype, channels, places = _CHANNELS[encoding]
    pixels = _unpack(message, dtype, channels, topic)
    colors = _to_8_bits(pixels[..., : len(set(places))], depth)  # without alpha
    if places == _RGB:
        return np.ascontiguousarray(colors)
    return np.stack([colors[..., place] for place in places], axis=-1)  # 7x faster than indexing with a list


def decode_depth(message: Any, topic: str) -> npt.NDArray[np.float32]:
    """Return the depth image of an `Image`: float32 [H, W], m."""
    if message.encoding not in _DEPTHS:
        found = message.encoding[:_LONGEST_NAME]
        raise UsageError(f"{topic} has depth encoded as {found}; supported are {', '.join(_DEPTHS)}")
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


def _decode_compressed(message: Any, topic: str, depth: StreamDepth) -> npt.NDArray[np.uint8]:
    form = str(message.format)[:_LONGEST_NAME]
    if "compressedDepth" in form:
        raise UsageError(f"{topic} has compressed depth; pass the topic of the color images")
    if any(name in form.lower() for name in _VIDEO):
        raise UsageError(f"{topic} has video ({form}); decode it to images, for example with image_transport republish")
    try:
        # In the orientation of the camera's depth and intrinsics.
        return load_image(bytes(message.data), upright=False, stream=depth)
    except UsageError as error:
        raise UsageError(f"{topic}, {form or 'compressed'}: {error}") from error


def _to_8_bits(pixels: npt.NDArray[Any], depth: StreamDepth) -> npt.NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else depth.scale(pixels)


def _unpack(message: Any, dtype: type[np.generic], channels: int, topic: str) -> npt.NDArray[Any]:
    """Return [H, W, channels] without the rows' padding, in native byte order."""
    height, width = int(message.height), int(message.width)
    row = width * channels * np.dtype(dtype).itemsize
    rows = _rows(message, height, row, topic)[:, :row]
    order = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    pixels: npt.NDArray[Any] = np.ascontiguousarray(rows).view(order).reshape(height, width, channels)
    return pixels.astype(dtype)  # a copy, because the message's memory may be reused


def _rows(message: Any, count: int, row: int, topic: str) -> npt.NDArray[np.uint8]:
    """Return the first rows of the data [count, step]; the last may lack its padding, and a step of 0 means none."""
    height, width, step = int(message.height), int(message.width), int(message.step) or row
    data = np.frombuffer(message.data, np.uint8)
    check_size((width, height), f"{topic}: the image")
    if count <= 0 or step < row or data.size < (count - 1) * step + row:
        raise UsageError(
            f"{topic}: an image of {width} x {height} ({message.encoding}, {step} bytes per row) has {data.size} bytes"
        )
    if count == 1:
        step = row
    missing = count * step - data.size
    return (np.pad(data, (0, missing)) if missing > 0 else data[: count * step]).reshape(count, step)


def _decode_packed(pairs: npt.NDArray[np.uint8], luma: int, u: int, v: int, topic: str) -> npt.NDArray[np.uint8]:
    """Return RGB of 4:2:2 YUV [H, W, 2]."""
    height, width, _ = pairs.shape
    if width % 2:
        raise UsageError(f"{topic}: a YUV 4:2:2 image must have an even width, not {width}")
    tiles = pairs.reshape(height, width // 2, 4)
    return _from_yuv(tiles[..., luma::2], tiles[..., u, None], tiles[..., v, None]).reshape(height, width, 3)


def _decode_planes(message: Any, shared: int, u: int, topic: str) -> npt.NDArray[np.uint8]:
    """Return RGB of a plane of Y before one of U and V in turn.

    The message's height is the image's, as ROS defines it, or that of both planes, as OpenCV has them in one array.
    """
    height, width = int(message.height), int(message.width)
    per_row = 2 // shared  # rows' lengths of U and V for each row of them
    planes = Fraction(per_row, shared) + 1  # the length of the data, in that of Y
    if len(message.data) <= height * (int(message.step) or width) and height % planes == 0:
        height = int(height / planes)
    if height % shared or width % shared:
        size = f"{width} x {height}"
        raise UsageError(f"{topic}: an image in {message.encoding} must have an even width and height, not {size}")
    rows = _rows(message, int(height * planes), width, topic)
    y = rows[:height, :width].reshape(height // shared, shared, width // shared, shared)
    chroma = rows[height:].reshape(height // shared, -1)[:, : per_row * width].reshape(height // shared, -1, 2)
    spread = chroma[:, None, :, None]
    return _from_yuv(y, spread[..., u], spread[..., 1 - u]).reshape(height, width, 3)


def _from_yuv(y: npt.NDArray[np.uint8], u: npt.NDArray[np.uint8], v: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return RGB [..., 3] (ITU-R BT.601, limited range 16 to 235, as in OpenCV)."""
    found = np.empty((*y.shape, 3), np.uint8)
    for rows in strips((y[:1].size, len(y))):
        bright = 298 * (np.maximum(y[rows], 16).astype(np.int32) - 16) + 128
        red, blue = v[rows].astype(np.int32) - 128, u[rows].astype(np.int32) - 128
        rgb = np.stack([bright + 409 * red, bright - 100 * blue - 208 * red, bright + 516 * blue], axis=-1) >> 8
        found[rows] = rgb.clip(0, 255)
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
