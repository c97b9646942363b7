"""The node in ROS 2 (Humble to Kilted), as a lifecycle node on the robot's own rclpy.

Nothing here thinks: messages are turned into frames and results into messages (`wise_edge.robot.messages`), the rest is
`wise_edge.robot.node.Node`. It could not be run where it was written; tests run it on a stand-in for rclpy.

Subscribed: `image` (sensor_msgs/Image, or sensor_msgs/CompressedImage with the parameter `compressed`), best effort,
the last one only; `depth` (sensor_msgs/Image, registered to the colour camera) and `camera_info` for places in space;
`query` (std_msgs/String, the standing query; empty ends it); `ask` (std_msgs/String, a one-shot query). Published:
`mask` (mono8), `detections` (vision_msgs/Detection2DArray), `rationale` and `result` (std_msgs/String, the latter
JSON), and `/diagnostics`. Services: `enable` (std_srvs/SetBool), `ask_once` (std_srvs/Trigger: the parameter `query` on
the newest frame).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.robot.diagnostics import Diagnostics
from wise_edge.robot.frames import Frame, Intrinsics
from wise_edge.robot.messages import (
    CAMERA,
    COMPRESSED,
    DETECTIONS,
    IMAGE,
    TEXT,
    decode_depth,
    stamp_of,
    to_detections,
    to_frame,
    to_intrinsics,
    to_mask_message,
)
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
PARAMETERS: dict[str, Any] = {
    "bundle": "",
    "policy_backend": "auto",
    "mask_backend": "auto",
    "variant": "",
    "deadline_ms": 0.0,
    "query": "",
    "compressed": False,
}
"""Parameters and what they are by themselves; an empty text or 0 leaves the choice to wise-edge."""
_SAME_NS = 20_000_000
"""Pictures of colour and depth that are no further apart in time belong together."""


class RosMessages:
    """Classes of messages from the robot's own packages, by full names such as "sensor_msgs/msg/Image"."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Return what makes a message; arrays of bytes are given to rclpy in the form that it copies at once."""
        return partial(_make, find_type(name))


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


def _make(kind: Any, **fields: Any) -> Any:
    return kind(**{name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    return array("B", value.tobytes()) if isinstance(value, np.ndarray) and value.dtype == np.uint8 else value


def run_ros2(arguments: Sequence[str]) -> None:
    """Run the node until ROS ends it, configured and activated at once.

    Args:
        arguments: ROS's own, such as ["--ros-args", "-p", "query:=the mug"].

    Raises:
        DeviceError: rclpy is not there.
    """
    try:
        rclpy = import_module("rclpy")
    except ImportError as error:
        raise DeviceError(
            "rclpy is missing: source /opt/ros/$ROS_DISTRO/setup.bash, and make the environment with "
            "--system-site-packages and that ROS distribution's own Python"
        ) from error
    rclpy.init(args=list(arguments))
    node = make_node(Session.from_bundle)
    try:
        node.trigger_configure()
        node.trigger_activate()
        executor = import_module("rclpy.executors").MultiThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, import_module("rclpy.executors").ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


def make_node(open_session: Callable[..., Session]) -> Any:
    """Make the lifecycle node; its class derives from rclpy's, so it is made where rclpy is known.

    Args:
        open_session: opens policy and segmenter when the node is configured.
    """
    lifecycle, qos = import_module("rclpy.lifecycle"), import_module("rclpy.qos")
    base: Any = lifecycle.LifecycleNode
    answer = lifecycle.TransitionCallbackReturn
    group = import_module("rclpy.callback_groups").ReentrantCallbackGroup()
    newest = qos.QoSProfile(history=qos.HistoryPolicy.KEEP_LAST, depth=1, reliability=qos.ReliabilityPolicy.BEST_EFFORT)

    class WiseEdge(base):  # type: ignore[misc]
        """Configured: models loaded. Active: frames are taken and queries answered."""

        def __init__(self) -> None:
            super().__init__("wise_edge")
            for name, value in PARAMETERS.items():
                self.declare_parameter(name, value)
            self._session: Session | None = None
            self._publishers: dict[str, Any] = {}
            self._bridge: Bridge | None = None
            self._taken: list[tuple[Callable[[Any], object], Any]] = []

        def on_configure(self, state: Any) -> Any:
            """Load the models, which takes a while, and offer the topics."""
            try:
                self._session = open_session(
                    self._value("bundle") or None,
                    policy_backend=self._value("policy_backend"),
                    mask_backend=self._value("mask_backend"),
                )
            except WiseEdgeError as error:
                self.get_logger().error(str(error))
                return answer.FAILURE
            kinds = {"mask": IMAGE, "detections": DETECTIONS, "rationale": TEXT, "result": TEXT}
            self._publishers = {
                name: self.create_lifecycle_publisher(find_type(kind), name, 1) for name, kind in kinds.items()
            }
            self._publishers["/diagnostics"] = self.create_publisher(find_type(DIAGNOSTICS), "/diagnostics", 10)
            return answer.SUCCESS

        def on_activate(self, state: Any) -> Any:
            """Begin to take frames."""
            if self._session is None:
                return answer.FAILURE
            node = Node(
                self._session,
                lambda result: bridge.publish(result),
                variant=self._value("variant") or None,
                deadline_ms=self._value("deadline_ms") or None,
            )
            now = self.get_clock().now
            bridge = Bridge(node, self._publishers, self.get_name(), lambda: now().to_msg(), self.get_logger().warning)
            self._bridge = bridge
            node.__enter__()
            bridge.follow(self._value("query"))
            pictures = find_type(COMPRESSED if self._value("compressed") else IMAGE)
            self._subscribe(pictures, "image", bridge.take_image, newest)
            self._subscribe(find_type(IMAGE), "depth", bridge.take_depth, newest)
            self._subscribe(find_type(CAMERA), "camera_info", bridge.take_camera, newest)
            self._subscribe(find_type(TEXT), "query", lambda message: bridge.follow(message.data), 10)
            self._subscribe(find_type(TEXT), "ask", lambda message: bridge.ask(message.data), 10)
            self._offer("std_srvs/srv/SetBool", "enable", bridge.enable)
            self._offer("std_srvs/srv/Trigger", "ask_once", partial(bridge.ask_once, lambda: self._value("query")))
            self._taken.append((self.destroy_timer, self.create_timer(1.0, bridge.diagnose, callback_group=group)))
            return super().on_activate(state)

        def on_deactivate(self, state: Any) -> Any:
            """Take no more frames; the models stay loaded."""
            self.close()
            return super().on_deactivate(state)

        def on_cleanup(self, state: Any) -> Any:
            """Let go of the models."""
            self.close()
            self._session = None
            for publisher in self._publishers.values():
                self.destroy_publisher(publisher)
            self._publishers = {}
            return answer.SUCCESS

        def close(self) -> None:
            """End the node's threads, and take nothing any more."""
            for destroy, taken in self._taken:
                destroy(taken)
            self._taken = []
            if self._bridge is not None:
                self._bridge.node.close()
                self._bridge = None

        def _subscribe(self, kind: Any, topic: str, take: Callable[[Any], object], quality: Any) -> None:
            made = self.create_subscription(kind, topic, take, quality, callback_group=group)
            self._taken.append((self.destroy_subscription, made))

        def _offer(self, kind: str, name: str, answer_with: Callable[[Any, Any], Any]) -> None:
            made = self.create_service(find_type(kind), name, answer_with, callback_group=group)
            self._taken.append((self.destroy_service, made))

        def _value(self, name: str) -> Any:
            return self.get_parameter(name).value

    return WiseEdge()


class Bridge:
    """Between ROS's callbacks and the node.

    Args:
        node: answers.
        publishers: "mask", "detections", "rationale", "result" and "/diagnostics" to ROS publishers.
        name: what diagnostics call the node.
        now: gives the time as a message.
        warn: takes what goes wrong, a line each.
    """

    def __init__(
        self,
        node: Node,
        publishers: dict[str, Any],
        name: str,
        now: Callable[[], Any],
        warn: Callable[[str], object],
    ) -> None:
        self.node = node
        self._publishers, self._name, self._now, self._warn = publishers, name, now, warn
        self._messages = RosMessages()
        self._depth: tuple[int, npt.NDArray[np.float32]] | None = None
        self._camera: Intrinsics | None = None

    def take_image(self, message: Any) -> None:
        """Take a picture, with the depth of the same moment where there is one."""
        self._try(lambda: self.node.put(self._with_depth(to_frame(message, "image"))))

    def take_depth(self, message: Any) -> None:
        """Keep a depth picture for the picture of the same moment."""

        def keep() -> None:
            self._depth = stamp_of(message.header), decode_depth(message, "depth")

        self._try(keep)

    def take_camera(self, message: Any) -> None:
        """Keep the camera's intrinsics."""

        def keep() -> None:
            self._camera = to_intrinsics(message)

        self._try(keep)

    def follow(self, query: str) -> None:
        """Take a standing query; an empty one ends it."""
        self._try(lambda: self.node.follow(query.strip() or None))

    def ask(self, query: str) -> None:
        """Answer a one-shot query on the topics."""
        self._try(lambda: self.publish(self.node.ask(query)))

    def ask_once(self, query: Callable[[], str], request: Any, response: Any) -> Any:
        """Answer the parameter's query in the service's response, as JSON."""
        try:
            response.message, response.success = json.dumps(self.node.ask(query()).to_dict()), True
        except WiseEdgeError as error:
            response.message, response.success = str(error), False
        return response

    def enable(self, request: Any, response: Any) -> Any:
        """Switch the standing query on and off."""
        self.node.enable(request.data)
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def publish(self, result: NodeResult) -> None:
        """Publish a result, every message with its frame's stamp and frame id."""
        seconds, nanoseconds = divmod(result.stamp_ns, 1_000_000_000)
        stamp = self._messages["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        header = self._messages["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame_id)
        told = {name: value for name, value in result.to_dict().items() if name != "mask"}
        text = self._messages[TEXT]
        self._publishers["mask"].publish(to_mask_message(result, header, self._messages))
        self._publishers["detections"].publish(to_detections(result, header, self._messages))
        self._publishers["rationale"].publish(text(data=result.rationale or ""))
        self._publishers["result"].publish(text(data=json.dumps(told)))

    def diagnose(self) -> None:
        """Publish how the node fares."""
        told = self.node.diagnostics()
        status = find_type("diagnostic_msgs/msg/DiagnosticStatus")
        level = {"ok": status.OK, "warn": status.WARN, "error": status.ERROR}[told.level]
        values = [self._messages["diagnostic_msgs/msg/KeyValue"](key=key, value=value) for key, value in _values(told)]
        one = self._messages["diagnostic_msgs/msg/DiagnosticStatus"](
            level=level, name=self._name, message=told.message, hardware_id="", values=values
        )
        header = self._messages["std_msgs/msg/Header"](stamp=self._now(), frame_id="")
        self._publishers["/diagnostics"].publish(self._messages[DIAGNOSTICS](header=header, status=[one]))

    def _with_depth(self, frame: Frame) -> Frame:
        depth = self._depth
        if depth is None or self._camera is None or abs(depth[0] - frame.stamp_ns) > _SAME_NS:
            return frame
        return Frame.of(frame.image, frame.stamp_ns, frame.frame_id, depth_m=depth[1], intrinsics=self._camera)

    def _try(self, work: Callable[[], None]) -> None:
        """Do something; what cannot be used is a warning, and the node goes on."""
        try:
            work()
        except WiseEdgeError as error:
            self._warn(str(error))


def _values(told: Diagnostics) -> list[tuple[str, str]]:
    facts = asdict(told)
    phases = facts.pop("grounding_ms")
    plain = {name: value for name, value in facts.items() if name not in ("level", "message") and value is not None}
    named = plain | {f"grounding {phase.replace('_', ' ')} ms": spent for phase, spent in phases.items()}
    return [(key, f"{value:.3f}" if isinstance(value, float) else str(value)) for key, value in named.items()]
