"""The lifecycle of the ROS 2 node: its topics, services and parameters, its models, and its transitions.

Subscribed: `image` (sensor_msgs/Image, or sensor_msgs/CompressedImage with the parameter `compressed`), best effort,
depth 1; `depth` (sensor_msgs/Image, registered to the color camera) and `camera_info` for places in space; `query`
(std_msgs/String, the standing query; empty ends it); `ask` (std_msgs/String, a one-shot query). Published: `mask`
(mono8), `detections` (vision_msgs/Detection2DArray), `detections_3d` (vision_msgs/Detection3DArray), `rationale` and
`result` (std_msgs/String; `result` is JSON), and `/diagnostics`. Services: `enable` (std_srvs/SetBool), `ask_once`
(std_srvs/Trigger: the parameter `query` on the newest frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from wise_edge.errors import DeviceError, UsageError, WiseEdgeError
from wise_edge.robot.messages import CAMERA, COMPRESSED, IMAGE
from wise_edge.robot.node import Node, explain
from wise_edge.robot.rerun_log import RerunLog, check_rerun, open_rerun
from wise_edge.robot.result_messages import DETECTIONS, DETECTIONS_3D, TEXT
from wise_edge.robot.ros2_bridge import DIAGNOSTICS, Bridge, find_type
from wise_edge.runtimes.session import Session

PARAMETERS: dict[str, tuple[Any, str]] = {
    "bundle": ("", "Bundle directory; empty for the embedded bundle."),
    "policy_backend": ("auto", "Backend of the policy."),
    "mask_backend": ("auto", "Backend of the segmenter."),
    "pixels": (0, "Most pixels of an image as the policy sees it; 0 for as many as the bundle takes."),
    "variant": ("", "Prompt variant; empty for the bundle's default."),
    "deadline_ms": (0.0, "Aim to answer within so many milliseconds, see 'wise-edge run -h'; 0 for no deadline."),
    "memory": (False, "Follow the standing query with the segmenter's memory."),
    "query": ("", "Standing query; empty for none."),
    "compressed": (False, "Subscribe to sensor_msgs/CompressedImage."),
    "rerun": ("", "Also log to the Rerun viewer: a .rrd file, or connect."),
    "autostart": (True, "Configure and activate at the start."),
}
"""Parameters, with default and description. `query` takes effect at once, `variant`, `deadline_ms` and `memory` at
the next activation, `compressed` and `autostart` only at the start, the others at the next configuration."""
_OUTPUTS = {"mask": IMAGE, "rationale": TEXT, "result": TEXT, "detections": DETECTIONS, "detections_3d": DETECTIONS_3D}


@dataclass
class Lifecycle:
    """What the lifecycle node holds: topics during its whole life, models once configured, the node while active.

    Topics and services are never destroyed while rclpy's executor runs, because it fails if they are.

    Args:
        ros: rclpy's node.
        open_session: opens policy and segmenter.

    Attributes:
        failure: why the last transition failed; None if it did not.
    """

    ros: Any
    open_session: Callable[..., Session]
    failure: Exception | None = None
    _session: Session | None = None
    _observe: RerunLog | None = None
    _configured: ExitStack = field(default_factory=ExitStack)
    _publishers: dict[str, Any] = field(default_factory=dict)
    _running: ExitStack | None = None

    def __post_init__(self) -> None:
        """Declare the parameters and create the topics and services."""
        descriptor = find_type("rcl_interfaces/msg/ParameterDescriptor")
        for name, (value, meaning) in PARAMETERS.items():
            # ROS reads 80 as an integer and "yes" as a bool; `value` converts to the type of the parameter.
            self.ros.declare_parameter(name, value, descriptor(description=meaning, dynamic_typing=True))
        now = self.ros.get_clock().now
        self.bridge = Bridge(
            lambda name, message: self._publishers[name].publish(message),
            self._publishers.__contains__,
            self.ros.get_fully_qualified_name(),
            lambda: now().to_msg(),
            self.ros.get_logger().warning,
        )
        self._create_topics()
        self.ros.add_on_set_parameters_callback(self._take_parameters)

    def value(self, name: str) -> Any:
        """Return a parameter, converted to the type of its default.

        Raises:
            UsageError: it cannot be converted.
        """
        given, kind = self.ros.get_parameter(name).value, type(PARAMETERS[name][0])
        if kind is bool and not isinstance(given, bool):
            raise UsageError(f"the parameter {name} must be true or false, not {given!r}")
        try:
            return kind(given)
        except (TypeError, ValueError):
            raise UsageError(f"the parameter {name} must be a number, not {given!r}") from None

    def start(self) -> None:
        """Configure and activate; raises if either fails."""
        for trigger in (self.ros.trigger_configure, self.ros.trigger_activate):
            self.failure = None
            trigger()
            if self.failure is not None:
                raise self.failure if isinstance(self.failure, WiseEdgeError) else DeviceError(explain(self.failure))

    def configure(self) -> None:
        """Load the models and open the recording."""
        check_rerun(self.value("rerun"))
        backends = {name: self.value(name) for name in ("policy_backend", "mask_backend")}
        session = self.open_session(self.value("bundle") or None, **backends, pixels=self.value("pixels") or None)
        self._observe = self._configured.enter_context(open_rerun(self.value("rerun"), session))
        self._session = session

    def activate(self) -> None:
        """Start accepting frames."""
        if self._session is None:
            raise UsageError("the models are not loaded; configure the node first")
        with ExitStack() as running:
            node = Node(
                self._session,
                self.bridge.publish,
                observe=self._observe,
                place=self.bridge.find_place,
                variant=self.value("variant") or None,
                deadline_ms=self.value("deadline_ms") or None,
                memory=self.value("memory"),
            )
            running.enter_context(node)
            node.follow(self.value("query").strip() or None)
            self._running = running.pop_all()
        self.bridge.node = node

    def deactivate(self) -> None:
        """Stop accepting frames."""
        self.bridge.node = None
        if self._running is not None:
            self._running.close()
            self._running = None

    def close(self) -> None:
        """Stop accepting frames, close the recording and release the models."""
        self.deactivate()
        self._configured.close()
        self._session = self._observe = None

    def _create_topics(self) -> None:
        ros, bridge, qos = self.ros, self.bridge, import_module("rclpy.qos")
        group = import_module("rclpy.callback_groups").MutuallyExclusiveCallbackGroup
        frames, words, asks, timers = (group() for _ in range(4))  # within each group, one callback at a time
        newest = qos.QoSProfile(
            history=qos.HistoryPolicy.KEEP_LAST, depth=1, reliability=qos.ReliabilityPolicy.BEST_EFFORT
        )
        text, images = find_type(TEXT), find_type(COMPRESSED if self.value("compressed") else IMAGE)
        ros.create_subscription(images, "image", bridge.take_image, newest, callback_group=frames)
        ros.create_subscription(find_type(IMAGE), "depth", bridge.take_depth, newest, callback_group=frames)
        ros.create_subscription(find_type(CAMERA), "camera_info", bridge.take_camera, newest, callback_group=frames)
        ros.create_subscription(text, "query", self._take_query, 10, callback_group=words)
        ros.create_subscription(text, "ask", lambda message: bridge.ask(message.data), 10, callback_group=asks)
        set_bool, trigger = find_type("std_srvs/srv/SetBool"), find_type("std_srvs/srv/Trigger")
        ros.create_service(
            set_bool, "enable", lambda request, reply: bridge.enable(request.data, reply), callback_group=words
        )
        ros.create_service(trigger, "ask_once", self._ask_once, callback_group=asks)
        ros.create_timer(1.0, bridge.diagnose, callback_group=timers)
        for name, kind in _OUTPUTS.items():
            try:
                self._publishers[name] = ros.create_lifecycle_publisher(find_type(kind), name, 1)
            except DeviceError as error:  # vision_msgs is not in the base of any ROS distribution
                ros.get_logger().warning(f"no {name}: {error}")
        self._publishers["diagnostics"] = ros.create_publisher(find_type(DIAGNOSTICS), "/diagnostics", 10)

    def _take_query(self, message: Any) -> None:
        """Store a standing query in the parameter, so that it survives a deactivation."""
        parameter = import_module("rclpy.parameter").Parameter
        self.ros.set_parameters([parameter("query", value=message.data)])

    def _take_parameters(self, parameters: Sequence[Any]) -> Any:
        """Apply a new standing query at once; reject the parameter if the query is invalid."""
        refused = [self.bridge.follow(str(each.value)) for each in parameters if each.name == "query"]
        reason = "; ".join(filter(None, refused))
        return find_type("rcl_interfaces/msg/SetParametersResult")(successful=not reason, reason=reason)

    def _ask_once(self, request: Any, response: Any) -> Any:
        return self.bridge.ask_once(self.value("query"), response)
