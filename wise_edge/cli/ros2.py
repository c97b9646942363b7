"""`wise-edge ros2`: a lifecycle node of ROS 2."""

from __future__ import annotations

import typer


def ros2(context: typer.Context) -> None:
    """Be a ROS 2 node, on the robot's own rclpy; arguments are ROS's, for example --ros-args -p query:="the mug".

    docs/robot.md has the topics, services and parameters.
    """
    from wise_edge.robot.ros2 import run_ros2

    run_ros2(context.args)
