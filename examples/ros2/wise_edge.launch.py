"""Start wise-edge on a camera topic.

ros2 launch examples/ros2/wise_edge.launch.py image:=/camera/color/image_raw query:="the mug"
"""

import json

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

TOPICS = {
    "image": "/camera/color/image_raw",
    "depth": "/camera/aligned_depth_to_color/image_raw",
    "camera_info": "/camera/color/camera_info",
}
WORDS = ("query", "bundle", "variant", "policy_backend", "mask_backend", "rerun")
VALUES = ("deadline_ms", "pixels", "memory", "compressed", "autostart", "use_sim_time")
OTHERS = {"executable": "wise-edge", "namespace": ""}


def start(context):
    """Return the process with the given arguments."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*TOPICS, *WORDS, *VALUES, *OTHERS)}
    command = [given["executable"], "ros2", "--ros-args"]
    for name in TOPICS:
        command += ["-r", f"{name}:={given[name]}"]
    for name in (name for name in WORDS if given[name]):
        command += ["-p", f"{name}:={json.dumps(given[name])}"]  # quoted, because ROS parses YAML, where 42 is a number
    for name in (name for name in VALUES if given[name]):
        command += ["-p", f"{name}:={given[name]}"]
    if given["namespace"]:
        command += ["-r", f"__ns:=/{given['namespace'].strip('/')}"]
    return [ExecuteProcess(cmd=command, output="screen")]


def generate_launch_description():
    """Return the launch arguments and the process."""
    values = TOPICS | dict.fromkeys((*WORDS, *VALUES), "") | OTHERS
    arguments = [DeclareLaunchArgument(name, default_value=value) for name, value in values.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
