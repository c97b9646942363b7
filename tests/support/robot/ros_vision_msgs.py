"""Detections as vision_msgs' own Python classes, generated here by ROS, because no package index has them.

test_ros2_real.py runs it with an output folder and with ROS_PYTHON_CHECK_FIELDS=1, so that every field's type is
checked.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rosidl_adapter.msg import convert_msg_to_idl
from rosidl_generator_py import generate_py

from node_results import node_result, placed_object
from wise_edge.robot.result_messages import VISION_MSGS, to_detections, to_detections_3d
from wise_edge.robot.ros2_bridge import RosMessages


def generate(folder: Path) -> None:
    """Generate the package's classes from our definitions of its messages."""
    (folder / "msg").mkdir(parents=True)
    files = []
    for name, definition in VISION_MSGS.items():
        file = folder / "msg" / f"{name.rsplit('/', 1)[1]}.msg"
        file.write_text(definition)
        with redirect_stdout(sys.stderr):
            files.append(convert_msg_to_idl(folder, "vision_msgs", file.relative_to(folder), folder / "idl" / "msg"))
    arguments = {
        "package_name": "vision_msgs",
        "output_dir": str(folder / "vision_msgs"),
        "template_dir": str(Path(get_package_share_directory("rosidl_generator_py")) / "resource"),
        "idl_tuples": [f"{folder / 'idl'}:msg/{file.name}" for file in files],
        "ros_interface_dependencies": [],
        "target_dependencies": [],
        "type_description_tuples": [],
    }
    (folder / "arguments.json").write_text(json.dumps(arguments))
    generate_py(str(folder / "arguments.json"), ["rosidl_typesupport_c"])
    sys.path.insert(0, str(folder))


def main(folder: Path) -> None:
    generate(folder)
    messages = RosMessages()
    header = messages["std_msgs/msg/Header"](frame_id="camera")
    known = node_result(objects=(placed_object(score=None),))
    (flat,) = to_detections(known, header, messages).detections
    (deep,) = to_detections_3d(known, header, messages).detections
    print(
        json.dumps(
            {
                "classes": sorted({type(flat).__module__.split(".")[0], type(deep).__module__.split(".")[0]}),
                "box": [flat.bbox.center.position.x, flat.bbox.center.position.y, flat.bbox.size_x, flat.bbox.size_y],
                "id": flat.results[0].hypothesis.class_id,
                "place": [deep.bbox.center.position.z, deep.bbox.size.x],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
