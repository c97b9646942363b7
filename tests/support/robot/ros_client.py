"""A robot that uses the node, on rclpy itself: prints the outcome of each step as JSON. Run by test_ros2_real.py.

With the argument "state" it stops after the first mask.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from array import array
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from wise_edge.datasets.scenes import SceneDataset

QUERY = "the red thing"  # the node's initial query
CONFIGURE, CLEAN_UP, ACTIVATE, DEACTIVATE, SHUT_DOWN = 1, 2, 3, 4, 7
RATE_HZ = 20


class Robot:
    """Publishes a scene like a camera, with depth slightly later, and listens."""

    def __init__(self) -> None:
        example = SceneDataset("test")[0]
        self.node = rclpy.create_node("robot")
        self.seen: dict[str, list[Any]] = {"mask": [], "result": [], "diagnostics": []}
        for name, kind, topic in (
            ("mask", Image, "mask"),
            ("result", String, "result"),
            ("diagnostics", DiagnosticArray, "/diagnostics"),
        ):
            self.node.create_subscription(kind, topic, self.seen[name].append, 10)
        self._image, self._depth = (self.node.create_publisher(Image, name, 1) for name in ("image", "depth"))
        self._camera = self.node.create_publisher(CameraInfo, "camera_info", 1)
        self._texts = {name: self.node.create_publisher(String, name, 10) for name in ("query", "ask")}
        self._pixels = example.image
        self._stopped = threading.Event()
        self.stamps: set[int] = set()
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        threading.Thread(target=executor.spin, daemon=True).start()
        threading.Thread(target=self._stream, daemon=True).start()

    def _stream(self) -> None:
        height, width, _ = self._pixels.shape
        camera = CameraInfo(height=height, width=width)
        camera.p = [200.0, 0.0, width / 2, 0.0, 0.0, 200.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
        image = image_of(self._pixels, "rgb8", 3)
        depth = image_of(np.full((height, width), 1500, np.uint16), "16UC1", 2)
        while not self._stopped.wait(1 / RATE_HZ):
            now = self.node.get_clock().now().to_msg()
            for message in (image, depth, camera):
                message.header.stamp, message.header.frame_id = now, "camera_optical"
            self.stamps.add(now.sec * 10**9 + now.nanosec)
            self._camera.publish(camera)
            self._image.publish(image)
            self._depth.publish(depth)

    def say(self, topic: str, words: str) -> None:
        self._texts[topic].publish(String(data=words))

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(30), name
        done, future = threading.Event(), client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        assert done.wait(60), f"{name} did not answer"
        return future.result()

    def change(self, transition: int) -> str:
        request = ChangeState.Request()
        request.transition.id = transition
        self.call(ChangeState, "/wise_edge/change_state", request)
        return self.state()

    def state(self) -> str:
        return str(self.call(GetState, "/wise_edge/get_state", GetState.Request()).current_state.label)

    def wait(self, name: str, more: int = 1, check: Any = lambda message: True) -> Any:
        """Wait for messages that arrive from now on."""
        begun, end_s = len(self.seen[name]), time.monotonic() + 60
        while time.monotonic() < end_s:
            found = [message for message in self.seen[name][begun:] if check(message)]
            if len(found) >= more:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no {name} came")

    def result(self, query: str) -> dict[str, Any]:
        """Wait for a result of a query."""
        found = self.wait("result", check=lambda message: json.loads(message.data)["query"] == query)
        outcome: dict[str, Any] = json.loads(found.data)
        return outcome

    def is_quiet(self) -> bool:
        """Return whether masks have stopped."""
        time.sleep(0.3)  # masks in flight arrive
        before = len(self.seen["mask"])
        time.sleep(0.5)  # ten frames
        return len(self.seen["mask"]) == before


def image_of(pixels: np.ndarray, encoding: str, bytes_a_pixel: int) -> Any:
    height, width = pixels.shape[:2]
    data = array("B", pixels.tobytes())
    return Image(height=height, width=width, encoding=encoding, step=width * bytes_a_pixel, data=data)


def main(only_state: bool) -> None:
    rclpy.init()
    robot = Robot()
    mask = robot.wait("mask")
    outcome: dict[str, Any] = {"state": robot.state()}
    if not only_state:
        use(robot, mask, outcome)
    json.dump(outcome, sys.stdout)
    sys.stdout.flush()


def use(robot: Robot, mask: Any, outcome: dict[str, Any]) -> None:
    """Use every topic, service, parameter and transition; `mask` is the first one."""
    stamp_ns = mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec
    outcome["mask"] = {
        "size": [mask.width, mask.height],
        "encoding": mask.encoding,
        "inside": sum(value == 255 for value in mask.data),
        "frame_id": mask.header.frame_id,
        "stamp_is_an_images": stamp_ns in robot.stamps,
    }
    outcome["standing"] = robot.result(QUERY)
    robot.wait("result", 5)  # depth has arrived
    outcome["placed"] = robot.result(QUERY)["place"]
    robot.say("query", "the green thing")
    outcome["other"] = robot.result("the green thing")["query"]
    robot.say("ask", "the smallest object")
    outcome["asked"] = robot.result("the smallest object")["standing"]
    once = robot.call(Trigger, "/ask_once", Trigger.Request())
    outcome["once"] = {"success": once.success, "query": json.loads(once.message)["query"]}
    off = robot.call(SetBool, "/enable", SetBool.Request(data=False))
    outcome["disabled"] = [off.success, off.message, robot.is_quiet()]
    robot.call(SetBool, "/enable", SetBool.Request(data=True))
    robot.wait("mask")
    request = SetParameters.Request(parameters=[Parameter("query", value=QUERY).to_parameter_msg()])
    outcome["set"] = robot.call(SetParameters, "/wise_edge/set_parameters", request).results[0].successful
    outcome["by_parameter"] = robot.result(QUERY)["query"]
    status = robot.wait("diagnostics", check=lambda message: message.status[0].message == "following").status[0]
    outcome["diagnostics"] = {"name": status.name, "level": status.level.hex()}

    threading.Thread(target=robot.say, args=("ask", "the small one")).start()  # a transition while a query runs
    outcome["deactivated"] = [robot.change(DEACTIVATE), robot.is_quiet()]
    once = robot.call(Trigger, "/ask_once", Trigger.Request())
    outcome["refused"] = [once.success, once.message]
    outcome["activated"] = robot.change(ACTIVATE)
    outcome["remembered"] = robot.result(QUERY)["query"]
    outcome["again"] = [
        robot.change(DEACTIVATE),
        robot.change(CLEAN_UP),
        robot.change(CONFIGURE),
        robot.change(ACTIVATE),
    ]
    robot.wait("mask")
    outcome["ended"] = [robot.change(SHUT_DOWN), robot.is_quiet()]


if __name__ == "__main__":
    main(only_state=sys.argv[1:] == ["state"])
    import os

    os._exit(0)  # the executor's thread does not end on its own
