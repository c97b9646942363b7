"""ROS 2 messages of rosbags' definitions, with vision_msgs, and the messages that a camera sends."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from wise_edge.robot.messages import IMAGE
from wise_edge.robot.result_messages import VISION_MSGS

STORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _definition in VISION_MSGS.items():
    STORE.register(get_types_from_msg(_definition, _name))
TYPES = STORE.types
STAMP_NS = 1_700_000_000_123_456_789  # a stamp that no float64 in seconds holds


def header_message(stamp_ns: int = STAMP_NS, frame_id: str = "camera") -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image_message(
    pixels: np.ndarray, encoding: str = "rgb8", *, stamp_ns: int = STAMP_NS, padding: int = 0, big: bool = False
) -> Any:
    """Return an `Image` of pixels [H, W] or [H, W, C], with rows padded by so many bytes and big-endian on request."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">" if big else "<")).reshape(height, -1)
    data = np.pad(rows.view(np.uint8), ((0, 0), (0, padding)))
    return TYPES[IMAGE](
        header=header_message(stamp_ns),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=data.shape[1],
        data=data.ravel(),
    )
