"""Start wise-edge on a camera's topic.

ros2 launch examples/ros2/wise_edge.launch.py image:=/camera/color/image_raw query:="the mug"
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

TOPICS = {"image": "/camera/color/image_raw", "depth": "/camera/aligned_depth_to_color/image_raw"}
TOPICS |= {"camera_info": "/camera/color/camera_info"}
PARAMETERS = {"bundle": "", "query": "", "variant": "", "deadline_ms": "0.0"}


def generate_launch_description() -> LaunchDescription:
    """Return the process with its topics and parameters."""
    command = ["wise-edge", "ros2", "--ros-args"]
    for name in TOPICS:
        command += ["-r", [f"{name}:=", LaunchConfiguration(name)]]
    for name in PARAMETERS:
        command += ["-p", [f"{name}:=", LaunchConfiguration(name)]]
    arguments = [DeclareLaunchArgument(name, default_value=value) for name, value in (TOPICS | PARAMETERS).items()]
    return LaunchDescription([*arguments, ExecuteProcess(cmd=command, output="screen")])
