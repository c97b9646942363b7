"""The node in ROS 2 (Humble to Kilted): a lifecycle node on the robot's own rclpy.

This module only starts and drives rclpy. `wise_edge.robot.ros2_lifecycle` has the topics, services and parameters,
`wise_edge.robot.ros2_bridge` converts messages, and `wise_edge.robot.node.Node` does the work. Tested on rclpy of Jazzy
and Kilted, from wheels (`tests/robot/test_ros2_real.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from wise_edge.errors import DeviceError, UsageError
from wise_edge.robot.node import explain
from wise_edge.robot.ros2_lifecycle import Lifecycle
from wise_edge.runtimes.session import Session


def run_ros2(arguments: Sequence[str]) -> None:
    """Run the node until ROS shuts it down.

    Args:
        arguments: arguments for ROS, such as ["--ros-args", "-p", "query:=the mug"].

    Raises:
        DeviceError: rclpy or a message package is missing.
        UsageError: ROS cannot parse the arguments.
        WiseEdgeError: the node cannot be configured or activated at the start.
    """
    try:
        rclpy = import_module("rclpy")
    except ImportError as error:
        raise DeviceError(
            "rclpy is missing: source /opt/ros/$ROS_DISTRO/setup.bash, and create the virtual environment with "
            "--system-site-packages and the Python of that ROS distribution"
        ) from error
    executors = import_module("rclpy.executors")
    try:
        rclpy.init(args=list(arguments))
    except Exception as error:  # from rcl; the type depends on the distribution
        raise UsageError(f"ROS cannot parse its arguments: {error}") from error
    try:
        node = make_node(Session.from_bundle)
        # One thread for each callback group and one more, so that a query delays nothing else.
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
    """Create the lifecycle node; its class derives from rclpy's, so it is defined here, after rclpy is imported.

    Args:
        open_session: opens policy and segmenter when the node is configured.

    Raises:
        DeviceError: a message package is not installed.
    """
    lifecycle = import_module("rclpy.lifecycle")
    base: Any = lifecycle.LifecycleNode
    answer = lifecycle.TransitionCallbackReturn

    class WiseEdgeNode(base):  # type: ignore[misc]
        """Forwards rclpy's transitions; it adds one attribute only, because rclpy's class has many."""

        def __init__(self) -> None:
            super().__init__("wise_edge")
            self.wise_edge = Lifecycle(self, open_session)

        def on_configure(self, state: Any) -> Any:
            """Load the models, which takes a while."""
            return self._do(self.wise_edge.configure) or super().on_configure(state)

        def on_activate(self, state: Any) -> Any:
            """Start accepting frames."""
            return self._do(self.wise_edge.activate) or super().on_activate(state)

        def on_deactivate(self, state: Any) -> Any:
            """Stop accepting frames; the models stay loaded."""
            return self._do(self.wise_edge.deactivate) or super().on_deactivate(state)

        def on_cleanup(self, state: Any) -> Any:
            """Release the models."""
            return self._do(self.wise_edge.close) or super().on_cleanup(state)

        def on_shutdown(self, state: Any) -> Any:
            """Shut down for good."""
            return self._do(self.wise_edge.close) or super().on_shutdown(state)

        def on_error(self, state: Any) -> Any:
            """Release the models, so that the node can be configured again."""
            return self._do(self.wise_edge.close) or super().on_error(state)

        def _do(self, work: Callable[[], None]) -> Any:
            """Run a transition and log its failure, which rclpy does not do."""
            try:
                work()
            except Exception as error:
                self.wise_edge.failure = error
                self.get_logger().error(explain(error))
                return answer.FAILURE
            return None

    return WiseEdgeNode()
