"""Between ROS's callbacks and the node: messages in, frames and queries on; results in, messages on.

Nothing here imports rclpy: publishers, the clock and the logger are handed in.
"""

from __future__ import annotations

import json
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from statistics import median
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, UsageError
from wise_edge.policy.prompts import normalize_query
from wise_edge.robot.diagnostics import Diagnostics
from wise_edge.robot.frames import Frame, Intrinsics, Place, find_place
from wise_edge.robot.messages import (
    TEXT,
    decode_depth,
    stamp_of,
    to_detections,
    to_detections_3d,
    to_frame,
    to_intrinsics,
    to_mask_message,
)
from wise_edge.robot.node import Node, explain
from wise_edge.robot.results import NodeResult

DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_DEPTHS = 10
_SAME_NS = 20_000_000
"""How far apart images of color and of depth may always be that belong together."""
_AGAIN_S = 5.0
"""How often the same warning is told."""


def find_type(name: str) -> Any:
    """Return a message's or service's class; raises `DeviceError` where its package is not installed."""
    package, kind, short = name.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), short)
    except ImportError as error:
        raise DeviceError(
            f"the ROS package {package} is missing: sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, and "
            "source /opt/ros/$ROS_DISTRO/setup.bash"
        ) from error


class RosMessages:
    """Classes of messages from the robot's own packages, by full names such as "sensor_msgs/msg/Image"."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Return what makes a message; arrays of bytes are given to rclpy in the form that it copies at once."""
        return partial(_make, find_type(name))


def _make(kind: Any, **fields: Any) -> Any:
    return kind(**{name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    return array("B", value.tobytes()) if isinstance(value, np.ndarray) and value.dtype == np.uint8 else value


class DepthCamera:
    """The last depth images, and the camera's intrinsics; either may come before or behind its color image."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: deque[tuple[int, npt.NDArray[np.float32]]] = deque(maxlen=_DEPTHS)  # as they came: a bag may loop
        self._camera: tuple[Intrinsics, tuple[int, int]] | None = None

    def keep(self, stamp_ns: int, depth_m: npt.NDArray[np.float32]) -> None:
        """Keep a depth image, float32 [H, W] in m, in place of the oldest."""
        with self._lock:
            self._kept.append((stamp_ns, depth_m))

    def calibrate(self, camera: Intrinsics, size: tuple[int, int]) -> None:
        """Keep the intrinsics of images of so many pixels (width, height)."""
        with self._lock:
            self._camera = camera, size

    def find_place(self, mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
        """Return where a mask of a frame lies; None without depth of its moment, or intrinsics.

        Raises:
            UsageError: depth or intrinsics are of images of another size.
        """
        with self._lock:
            depth_m, camera = self._nearest(frame.stamp_ns), self._camera
        if depth_m is None or camera is None:
            return None
        height, width = mask.shape
        if camera[1] != (width, height):
            raise UsageError(
                f"camera_info is of {camera[1][0]} x {camera[1][1]} pixels, the image has {width} x {height}; "
                "remap it to the camera_info beside the image"
            )
        return find_place(mask, replace(frame, depth_m=depth_m, intrinsics=camera[0]))

    def _nearest(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the depth image of a moment: no further away than half of the time between two of them."""
        if not self._kept:
            return None
        pauses = [abs(later[0] - earlier[0]) for earlier, later in pairwise(self._kept)]
        within = max(_SAME_NS, median(pauses) / 2 if pauses else 0)
        kept_ns, depth_m = min(self._kept, key=lambda kept: abs(kept[0] - stamp_ns))
        return depth_m if abs(kept_ns - stamp_ns) <= within else None


class Bridge:
    """Turns messages into frames and queries of the node, and results into messages.

    Callbacks never raise: what cannot be used is a warning, told once in a while, and the node goes on.

    Args:
        publish: takes "mask", "detections", "detections_3d", "rationale", "result" or "diagnostics", and its message.
        publishes: those of them that anybody can take here.
        name: what diagnostics call the node.
        now: gives the time as a message.
        warn: takes a line.
    """

    def __init__(
        self,
        publish: Callable[[str, Any], None],
        publishes: Callable[[str], bool],
        name: str,
        now: Callable[[], Any],
        warn: Callable[[str], object],
    ) -> None:
        self.node: Node | None = None
        self._publish, self._publishes, self._name, self._now, self._warn = publish, publishes, name, now, warn
        self._messages = RosMessages()
        self._depth = DepthCamera()
        self._warned: dict[str, float] = {}

    def take_image(self, message: Any) -> None:
        """Take an image."""
        self._with_node(lambda node: node.put(to_frame(message, "image")))

    def take_depth(self, message: Any) -> None:
        """Keep a depth image for the image of its moment."""
        self._with_node(lambda node: self._depth.keep(stamp_of(message.header), decode_depth(message, "depth")))

    def take_camera(self, message: Any) -> None:
        """Keep the camera's intrinsics."""
        size = int(message.width), int(message.height)
        self._with_node(lambda node: self._depth.calibrate(to_intrinsics(message), size))

    def follow(self, query: str) -> str | None:
        """Take a standing query, if the node is active; an empty one ends it. Return why one cannot be asked."""
        words = query.strip() or None
        try:
            if words is not None:
                normalize_query(words)
        except UsageError as error:
            self._complain(str(error))
            return str(error)
        if self.node is not None:
            self._with_node(lambda node: node.follow(words))
        return None

    def ask(self, query: str) -> None:
        """Answer a one-shot query on the topics."""
        self._with_node(lambda node: self.publish(node.ask(query)))

    def ask_once(self, query: str, response: Any) -> Any:
        """Answer a query in the response of a Trigger, as JSON."""

        def answer(node: Node) -> None:
            response.message, response.success = json.dumps(node.ask(query).to_dict()), True

        response.success = False
        response.message = self._with_node(answer) or response.message
        return response

    def enable(self, on: bool, response: Any) -> Any:
        """Switch the standing query on and off, in answer to a SetBool."""
        refused = self._with_node(lambda node: node.enable(on))
        response.success, response.message = refused is None, refused or ("enabled" if on else "disabled")
        return response

    def find_place(self, mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
        """As `DepthCamera.find_place`; what does not fit is a warning, and no place."""
        try:
            return self._depth.find_place(mask, frame)
        except UsageError as error:
            self._complain(str(error))
            return None

    def publish(self, result: NodeResult) -> None:
        """Publish a result, every message with its frame's stamp and frame id."""
        seconds, nanoseconds = divmod(result.stamp_ns, 1_000_000_000)
        stamp = self._messages["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        header = self._messages["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
        text = self._messages[TEXT]
        makers: Mapping[str, Callable[[], Any]] = {
            "mask": lambda: to_mask_message(result, header, self._messages),
            "detections": lambda: to_detections(result, header, self._messages),
            "detections_3d": lambda: to_detections_3d(result, header, self._messages),
            "rationale": lambda: text(data=result.rationale or ""),
            "result": lambda: text(data=json.dumps(result.to_facts())),
        }
        for name, make in makers.items():
            if self._publishes(name):
                self._publish(name, make())

    def diagnose(self) -> None:
        """Publish how the node fares."""

        def tell(node: Node) -> None:
            told = node.diagnostics()
            status = find_type("diagnostic_msgs/msg/DiagnosticStatus")
            level = {"ok": status.OK, "warn": status.WARN, "error": status.ERROR}[told.level]
            pair = self._messages["diagnostic_msgs/msg/KeyValue"]
            values = [pair(key=key, value=value) for key, value in _values(told)]
            one = self._messages["diagnostic_msgs/msg/DiagnosticStatus"](
                level=level, name=self._name, message=told.message, hardware_id="", values=values
            )
            header = self._messages["std_msgs/msg/Header"](stamp=self._now(), frame_id="")
            self._publish("diagnostics", self._messages[DIAGNOSTICS](header=header, status=[one]))

        if self.node is not None:
            self._with_node(tell)

    def _with_node(self, work: Callable[[Node], None]) -> str | None:
        """Do something with the node; return what went wrong, which is a warning too."""
        node = self.node
        if node is None:
            return "wise-edge is not active; activate it first"
        try:
            work(node)
        except Exception as error:  # one that reaches rclpy's executor would end the process
            message = explain(error)
            self._complain(message)
            return message
        return None

    def _complain(self, message: str) -> None:
        now_s = time.monotonic()
        if now_s - self._warned.get(message, -_AGAIN_S) >= _AGAIN_S:
            self._warned = {told: at_s for told, at_s in self._warned.items() if now_s - at_s < _AGAIN_S}
            self._warned[message] = now_s
            self._warn(message)


def _values(told: Diagnostics) -> list[tuple[str, str]]:
    facts = asdict(told)
    phases = facts.pop("grounding_ms")
    plain = {name: value for name, value in facts.items() if name not in ("level", "message") and value is not None}
    named = plain | {f"grounding {phase.replace('_', ' ')} ms": spent for phase, spent in phases.items()}
    return [(key, f"{value:.3f}" if isinstance(value, float) else str(value)) for key, value in named.items()]
