"""The node in ROS 2 (Humble to Kilted), as a lifecycle node on the robot's own rclpy.

Nothing here thinks: `wise_edge.robot.ros2_bridge` turns messages into frames and results into messages, the rest is
`wise_edge.robot.node.Node`. Run on rclpy of Jazzy and Kilted, from wheels (`tests/robot/test_ros2_real.py`).

Subscribed: `image` (sensor_msgs/Image, or sensor_msgs/CompressedImage with the parameter `compressed`), best effort,
the last one only; `depth` (sensor_msgs/Image, registered to the color camera) and `camera_info` for places in space;
`query` (std_msgs/String, the standing query; empty ends it); `ask` (std_msgs/String, a one-shot query). Published:
`mask` (mono8), `detections` (vision_msgs/Detection2DArray), `detections_3d` (vision_msgs/Detection3DArray), `rationale`
and `result` (std_msgs/String, the latter JSON), and `/diagnostics`. Services: `enable` (std_srvs/SetBool), `ask_once`
(std_srvs/Trigger: the parameter `query` on the newest frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from wise_edge.errors import DeviceError, UsageError, WiseEdgeError
from wise_edge.robot.messages import CAMERA, COMPRESSED, DETECTIONS, DETECTIONS_3D, IMAGE, TEXT
from wise_edge.robot.node import Node, explain
from wise_edge.robot.rerun_log import RerunLog, open_rerun
from wise_edge.robot.ros2_bridge import DIAGNOSTICS, Bridge, find_type
from wise_edge.runtimes.session import Session

PARAMETERS: dict[str, tuple[Any, str]] = {
    "bundle": ("", "Folder of the bundle; empty for the embedded one."),
    "policy_backend": ("auto", "Runtime of the policy."),
    "mask_backend": ("auto", "Runtime of the segmenter."),
    "variant": ("", "Prompt variant; empty for the bundle's default."),
    "deadline_ms": (0.0, "Choose each grounding's variant by this instead; 0 for none."),
    "query": ("", "The standing query; empty for none."),
    "compressed": (False, "Take sensor_msgs/CompressedImage."),
    "rerun": ("", "Also log to the Rerun viewer: a file, or connect."),
    "autostart": (True, "Configure and activate at once."),
}
"""Parameters, what they are by themselves, and what they mean: `query` counts at once, `variant` and `deadline_ms` when
the node is next activated, `compressed` and `autostart` at the start, the others when it is next configured."""
_OUTPUTS = {"mask": IMAGE, "rationale": TEXT, "result": TEXT, "detections": DETECTIONS, "detections_3d": DETECTIONS_3D}


def run_ros2(arguments: Sequence[str]) -> None:
    """Run the node until ROS ends it.

    Args:
        arguments: ROS's own, such as ["--ros-args", "-p", "query:=the mug"].

    Raises:
        DeviceError: rclpy or a package of messages is not there.
        UsageError: ROS cannot read the arguments.
        WiseEdgeError: it cannot be configured or activated at once.
    """
    try:
        rclpy = import_module("rclpy")
    except ImportError as error:
        raise DeviceError(
            "rclpy is missing: source /opt/ros/$ROS_DISTRO/setup.bash, and make the environment with "
            "--system-site-packages and that ROS distribution's own Python"
        ) from error
    executors = import_module("rclpy.executors")
    try:
        rclpy.init(args=list(arguments))
    except Exception as error:  # rcl's own, of several kinds by distribution
        raise UsageError(f"ROS cannot read its arguments: {error}") from error
    try:
        node = make_node(Session.from_bundle)
        # A thread for each callback group and one more, so that a query keeps nothing else waiting.
        executor = executors.MultiThreadedExecutor(num_threads=6)
        executor.add_node(node)
        try:
            if node.wise_edge.value("autostart"):
                node.wise_edge.start()
            executor.spin()
        except (KeyboardInterrupt, executors.ExternalShutdownException):
            pass
        finally:
            node.wise_edge.close()
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def make_node(open_session: Callable[..., Session]) -> Any:
    """Make the lifecycle node; its class derives from rclpy's, so it is made where rclpy is known.

    Args:
        open_session: opens policy and segmenter when the node is configured.

    Raises:
        DeviceError: a package of messages is not installed.
    """
    lifecycle = import_module("rclpy.lifecycle")
    base: Any = lifecycle.LifecycleNode
    answer = lifecycle.TransitionCallbackReturn

    class WiseEdgeNode(base):  # type: ignore[misc]
        """Hands rclpy's transitions on; rclpy's own attributes are many, so that there is one of ours."""

        def __init__(self) -> None:
            super().__init__("wise_edge")
            self.wise_edge = Lifecycle(self, open_session)

        def on_configure(self, state: Any) -> Any:
            """Load the models, which takes a while."""
            return self._do(self.wise_edge.configure) or super().on_configure(state)

        def on_activate(self, state: Any) -> Any:
            """Begin to take frames."""
            return self._do(self.wise_edge.activate) or super().on_activate(state)

        def on_deactivate(self, state: Any) -> Any:
            """Take no more frames; the models stay loaded."""
            return self._do(self.wise_edge.deactivate) or super().on_deactivate(state)

        def on_cleanup(self, state: Any) -> Any:
            """Let go of the models."""
            return self._do(self.wise_edge.close) or super().on_cleanup(state)

        def on_shutdown(self, state: Any) -> Any:
            """End for good."""
            return self._do(self.wise_edge.close) or super().on_shutdown(state)

        def on_error(self, state: Any) -> Any:
            """Begin anew."""
            return self._do(self.wise_edge.close) or super().on_error(state)

        def _do(self, work: Callable[[], None]) -> Any:
            """Do something; what fails is told, which rclpy does not."""
            try:
                work()
            except Exception as error:
                self.wise_edge.failure = error
                self.get_logger().error(explain(error))
                return answer.FAILURE
            return None

    return WiseEdgeNode()


@dataclass
class Lifecycle:
    """What the lifecycle node holds: topics for as long as it lives, models once configured, the node while active.

    Topics and services are never taken down while rclpy's executor may hand them something: it fails where they are.

    Args:
        ros: rclpy's node.
        open_session: opens policy and segmenter.

    Attributes:
        failure: why the last transition failed; None where none did.
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
        """Declare parameters and offer topics and services."""
        descriptor = find_type("rcl_interfaces/msg/ParameterDescriptor")
        for name, (value, meaning) in PARAMETERS.items():
            # ROS takes 80 for a whole number and "yes" for a truth; what is meant is clear from the parameter.
            self.ros.declare_parameter(name, value, descriptor(description=meaning, dynamic_typing=True))
        now = self.ros.get_clock().now
        self.bridge = Bridge(
            lambda name, message: self._publishers[name].publish(message),
            self._publishers.__contains__,
            self.ros.get_fully_qualified_name(),
            lambda: now().to_msg(),
            self.ros.get_logger().warning,
        )
        self._offer_topics()
        self.ros.add_on_set_parameters_callback(self._take_parameters)

    def value(self, name: str) -> Any:
        """Return a parameter, of the type that it has by itself.

        Raises:
            UsageError: it cannot be.
        """
        given, kind = self.ros.get_parameter(name).value, type(PARAMETERS[name][0])
        if kind is bool and not isinstance(given, bool):
            raise UsageError(f"the parameter {name} is true or false, not {given!r}")
        try:
            return kind(given)
        except (TypeError, ValueError):
            raise UsageError(f"the parameter {name} is a number, not {given!r}") from None

    def start(self) -> None:
        """Configure and activate; raises what went wrong."""
        for trigger in (self.ros.trigger_configure, self.ros.trigger_activate):
            self.failure = None
            trigger()
            if self.failure is not None:
                raise self.failure if isinstance(self.failure, WiseEdgeError) else DeviceError(explain(self.failure))

    def configure(self) -> None:
        """Load the models, and open the recording."""
        backends = {name: self.value(name) for name in ("policy_backend", "mask_backend")}
        session = self.open_session(self.value("bundle") or None, **backends)
        self._observe = self._configured.enter_context(open_rerun(self.value("rerun"), session))
        self._session = session

    def activate(self) -> None:
        """Begin to take frames."""
        if self._session is None:
            raise UsageError("there are no models; configure first")
        with ExitStack() as running:
            node = Node(
                self._session,
                self.bridge.publish,
                observe=self._observe,
                place=self.bridge.find_place,
                variant=self.value("variant") or None,
                deadline_ms=self.value("deadline_ms") or None,
            )
            running.enter_context(node)
            node.follow(self.value("query").strip() or None)
            self._running = running.pop_all()
        self.bridge.node = node

    def deactivate(self) -> None:
        """Take no more frames."""
        self.bridge.node = None
        if self._running is not None:
            self._running.close()
            self._running = None

    def close(self) -> None:
        """Take no more frames, end the recording, and let go of the models."""
        self.deactivate()
        self._configured.close()
        self._session = self._observe = None

    def _offer_topics(self) -> None:
        ros, bridge, qos = self.ros, self.bridge, import_module("rclpy.qos")
        group = import_module("rclpy.callback_groups").MutuallyExclusiveCallbackGroup
        frames, words, asks, timers = (group() for _ in range(4))  # in each, one after the other
        newest = qos.QoSProfile(
            history=qos.HistoryPolicy.KEEP_LAST, depth=1, reliability=qos.ReliabilityPolicy.BEST_EFFORT
        )
        text, pictures = find_type(TEXT), find_type(COMPRESSED if self.value("compressed") else IMAGE)
        ros.create_subscription(pictures, "image", bridge.take_image, newest, callback_group=frames)
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
            except DeviceError as error:  # vision_msgs is in no ROS distribution's base
                ros.get_logger().warning(f"no {name}: {error}")
        self._publishers["diagnostics"] = ros.create_publisher(find_type(DIAGNOSTICS), "/diagnostics", 10)

    def _take_query(self, message: Any) -> None:
        """Take a standing query, which the parameter then holds, so that it outlives a deactivation."""
        parameter = import_module("rclpy.parameter").Parameter
        self.ros.set_parameters([parameter("query", value=message.data)])

    def _take_parameters(self, parameters: Sequence[Any]) -> Any:
        """Take a standing query at once; one that cannot be asked is no parameter either."""
        refused = [self.bridge.follow(str(each.value)) for each in parameters if each.name == "query"]
        reason = "; ".join(filter(None, refused))
        return find_type("rcl_interfaces/msg/SetParametersResult")(successful=not reason, reason=reason)

    def _ask_once(self, request: Any, response: Any) -> Any:
        return self.bridge.ask_once(self.value("query"), response)
