"""`wise-edge ros2`: a ROS 2 lifecycle node."""

from __future__ import annotations

import typer


def ros2(context: typer.Context) -> None:
    """Run as a ROS 2 node on the robot's rclpy; arguments are passed to ROS, e.g. --ros-args -p query:="the mug".

    See docs/robot.md for the topics, services and parameters.
    """
    from wise_edge.robot.ros2 import run_ros2

    run_ros2(context.args)
