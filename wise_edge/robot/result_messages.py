"""Convert results to ROS messages, which are made of classes that the caller passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from wise_edge.robot.messages import IMAGE
from wise_edge.robot.results import NodeResult

DETECTIONS, DETECTIONS_3D = "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/Detection3DArray"
TEXT = "std_msgs/msg/String"

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


Make = Callable[..., Any]


class Messages(Protocol):
    """A source of message classes."""

    def __getitem__(self, name: str) -> Make:
        """Return a message class by its full name, such as "sensor_msgs/msg/Image"."""
        ...


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
