"""Convert results to ROS messages, which are made of classes that the caller passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from wise_edge.robot.frames import Place
from wise_edge.robot.messages import IMAGE
from wise_edge.robot.results import NodeResult, PlacedObject

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
    """Return all masks as a mono8 `Image` of the frame's size; see `Findings.mask_image`."""
    width, height = result.image_size
    pixels = result.mask_image().ravel()
    return messages[IMAGE](
        header=header, height=height, width=width, encoding="mono8", is_bigendian=0, step=width, data=pixels
    )


def to_detections(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return box, name and score of each object as a `Detection2DArray`; it is empty if nothing was found."""
    found = [_detection(item, result.query, header, messages) for item in result.objects]
    return messages[DETECTIONS](header=header, detections=found)


def to_detections_3d(result: NodeResult, header: Any, messages: Messages) -> Any:
    """Return place and extent of each object in the camera's frame, as a `Detection3DArray` of those with a place."""
    found = [
        _detection_3d(item, item.place, result.query, header, messages)
        for item in result.objects
        if item.place is not None
    ]
    return messages[DETECTIONS_3D](header=header, detections=found)


def _detection(item: PlacedObject, query: str, header: Any, messages: Messages) -> Any:
    left, top, right, bottom = item.box
    center = messages["vision_msgs/msg/Pose2D"](
        position=messages["vision_msgs/msg/Point2D"](x=(left + right) / 2, y=(top + bottom) / 2), theta=0.0
    )
    box = messages["vision_msgs/msg/BoundingBox2D"](
        center=center, size_x=float(right - left), size_y=float(bottom - top)
    )
    return messages["vision_msgs/msg/Detection2D"](
        header=header, results=[_hypothesis(item, query, messages)], bbox=box, id=_name(item, query)
    )


def _detection_3d(item: PlacedObject, place: Place, query: str, header: Any, messages: Messages) -> Any:
    width, height, length = place.extent_m
    box = messages["vision_msgs/msg/BoundingBox3D"](
        center=_pose(place, messages), size=messages["geometry_msgs/msg/Vector3"](x=width, y=height, z=length)
    )
    return messages["vision_msgs/msg/Detection3D"](
        header=header, results=[_hypothesis(item, query, messages)], bbox=box, id=_name(item, query)
    )


def _name(item: PlacedObject, query: str) -> str:
    """Return what identifies an object while it is followed: the query, with its number from the second object on."""
    return query if item.number == 1 else f"{query} #{item.number}"


def _hypothesis(item: PlacedObject, query: str, messages: Messages) -> Any:
    """Return label or query, score and pose; if the place is unknown, covariance[0] is -1, as in sensor_msgs/Imu."""
    covariance = np.zeros(36)
    covariance[0] = -1.0 if item.place is None else 0.0
    return messages["vision_msgs/msg/ObjectHypothesisWithPose"](
        hypothesis=messages["vision_msgs/msg/ObjectHypothesis"](class_id=item.label or query, score=item.score or 0.0),
        pose=messages["geometry_msgs/msg/PoseWithCovariance"](pose=_pose(item.place, messages), covariance=covariance),
    )


def _pose(place: Place | None, messages: Messages) -> Any:
    x, y, z = place.center_m if place else (0.0, 0.0, 0.0)
    return messages["geometry_msgs/msg/Pose"](
        position=messages["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=messages["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
