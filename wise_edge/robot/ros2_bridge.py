"""Connect ROS callbacks to the node: messages become frames and queries, results become messages.

Nothing here imports rclpy: publishers, the clock and the logger are passed in.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, UsageError
from wise_edge.files.documents import to_json
from wise_edge.images.depth import StreamDepth
from wise_edge.policy.prompts import normalize_query
from wise_edge.robot import messages, result_messages
from wise_edge.robot.depth_camera import DepthCamera
from wise_edge.robot.diagnostics import Diagnostics
from wise_edge.robot.frames import Frame, Place
from wise_edge.robot.node import Node, explain
from wise_edge.robot.results import NodeResult

DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_AGAIN_S = 5.0
"""Shortest interval between two identical warnings."""


def find_type(name: str) -> Any:
    """Return the class of a message or service; raises `DeviceError` if its package is not installed."""
    package, kind, short = name.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), short)
    except ImportError as error:
        raise DeviceError(
            f"the ROS package {package} is missing: sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, and "
            "source /opt/ros/$ROS_DISTRO/setup.bash"
        ) from error


class RosMessages:
    """Message classes from the robot's own packages, by full names such as "sensor_msgs/msg/Image"."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Return a factory of messages, which converts byte arrays to the one type that rclpy copies in one step."""
        return partial(_make, find_type(name))


def _make(kind: Any, **fields: Any) -> Any:
    return kind(**{name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    return array("B", value.tobytes()) if isinstance(value, np.ndarray) and value.dtype == np.uint8 else value


class Bridge:
    """Converts messages to frames and queries for the node, and results to messages.

    Callbacks never raise: an invalid message causes a warning, at most one every `_AGAIN_S`, and the node continues.

    Args:
        publish: called with an output and its message; the outputs are "mask", "detections", "detections_3d",
            "rationale", "result" and "diagnostics".
        publishes: whether an output can be published here.
        name: the node's name in diagnostics.
        now: returns the time as a message.
        warn: logs a line.
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
        self._bits = StreamDepth()
        self._warned: dict[str, float] = {}

    def take_image(self, message: Any) -> None:
        """Pass an image to the node, and say it when images of 16 bits begin to use more of them."""
        used = self._bits.bits
        self._with_node(lambda node: node.put(messages.to_frame(message, "image", self._bits)))
        if self._bits.bits != used:
            self._warn_once(
                f"images of 16 bits are scaled by {self._bits.bits} bits, the most that one has used so far"
            )

    def take_depth(self, message: Any) -> None:
        """Keep a depth image for the color image of the same time."""
        self._with_node(
            lambda node: self._depth.keep(messages.stamp_of(message.header), messages.decode_depth(message, "depth"))
        )

    def take_camera(self, message: Any) -> None:
        """Keep the camera's intrinsics."""
        size = int(message.width), int(message.height)
        self._with_node(lambda node: self._depth.calibrate(messages.to_intrinsics(message), size))

    def follow(self, query: str) -> str | None:
        """Replace the standing query if the node is active; an empty one ends it. Return why a query is invalid."""
        words = query.strip() or None
        try:
            if words is not None:
                normalize_query(words)
        except UsageError as error:
            self._warn_once(str(error))
            return str(error)
        if self.node is not None:
            self._with_node(lambda node: node.follow(words))
        return None

    def ask(self, query: str) -> None:
        """Answer a one-shot query and publish the result on the topics."""
        self._with_node(lambda node: self.publish(node.ask(query)))

    def ask_once(self, query: str, response: Any) -> Any:
        """Answer a query as JSON in the response of a Trigger."""

        def answer(node: Node) -> None:
            response.message, response.success = to_json(node.ask(query).to_dict()), True

        response.success = False
        response.message = self._with_node(answer) or response.message
        return response

    def enable(self, on: bool, response: Any) -> Any:
        """Enable or pause the standing query and fill in the response of a SetBool."""
        refused = self._with_node(lambda node: node.enable(on))
        response.success, response.message = refused is None, refused or ("enabled" if on else "disabled")
        return response

    def find_place(self, mask: npt.NDArray[np.bool_], frame: Frame) -> Place | None:
        """Return `DepthCamera.find_place`, or None with a warning if sizes do not match."""
        try:
            return self._depth.find_place(mask, frame)
        except UsageError as error:
            self._warn_once(str(error))
            return None

    def publish(self, result: NodeResult) -> None:
        """Publish a result; every message has the stamp and frame id of the result's frame."""
        seconds, nanoseconds = divmod(result.stamp_ns, 1_000_000_000)
        stamp = self._messages["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        header = self._messages["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
        text = self._messages[result_messages.TEXT]
        makers: Mapping[str, Callable[[], Any]] = {
            "mask": lambda: result_messages.to_mask_message(result, header, self._messages),
            "detections": lambda: result_messages.to_detections(result, header, self._messages),
            "detections_3d": lambda: result_messages.to_detections_3d(result, header, self._messages),
            "rationale": lambda: text(data=result.rationale or ""),
            "result": lambda: text(data=to_json(result.to_facts())),
        }
        for name, make in makers.items():
            if self._publishes(name):
                self._publish(name, make())

    def diagnose(self) -> None:
        """Publish the diagnostics."""

        def report(node: Node) -> None:
            state = node.diagnostics()
            status = find_type("diagnostic_msgs/msg/DiagnosticStatus")
            level = {"ok": status.OK, "warn": status.WARN, "error": status.ERROR}[state.level]
            pair = self._messages["diagnostic_msgs/msg/KeyValue"]
            values = [pair(key=key, value=value) for key, value in _values(state)]
            one = self._messages["diagnostic_msgs/msg/DiagnosticStatus"](
                level=level, name=self._name, message=state.message, hardware_id="", values=values
            )
            header = self._messages["std_msgs/msg/Header"](stamp=self._now(), frame_id="")
            self._publish("diagnostics", self._messages[DIAGNOSTICS](header=header, status=[one]))

        if self.node is not None:
            self._with_node(report)

    def _with_node(self, work: Callable[[Node], None]) -> str | None:
        """Do something with the node; return what went wrong, after logging it as a warning."""
        node = self.node
        if node is None:
            return "wise-edge is not active; activate it first"
        try:
            work(node)
        except Exception as error:  # in rclpy's executor it would end the process
            message = explain(error)
            self._warn_once(message)
            return message
        return None

    def _warn_once(self, message: str) -> None:
        now_s = time.monotonic()
        if now_s - self._warned.get(message, -_AGAIN_S) >= _AGAIN_S:
            self._warned = {line: at_s for line, at_s in self._warned.items() if now_s - at_s < _AGAIN_S}
            self._warned[message] = now_s
            self._warn(message)


def _values(state: Diagnostics) -> list[tuple[str, str]]:
    facts = asdict(state)
    phases = facts.pop("grounding_ms")
    plain = {name: value for name, value in facts.items() if name not in ("level", "message") and value is not None}
    named = plain | {f"grounding {phase.replace('_', ' ')} ms": spent for phase, spent in phases.items()}
    return [(key, f"{value:.3f}" if isinstance(value, float) else str(value)) for key, value in named.items()]
