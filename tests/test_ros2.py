"""The ROS 2 adapter, on a stand-in for rclpy: messages in, messages with their own stamps out, and a whole life."""

from __future__ import annotations

import json
from array import array
from types import SimpleNamespace
from typing import Any

import fake_rclpy
import fake_session
import numpy as np
import pytest
from fake_rclpy import TYPES, LifecycleNode
from fake_session import FakeMask, FakePolicy
from test_tracking import wait_for

from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, UsageError
from wise_edge.robot.messages import stamp_of
from wise_edge.robot.ros2 import RosMessages, find_type, make_node
from wise_edge.runtimes.session import Session

STAMP_NS = 1_700_000_000_123_456_789


@pytest.fixture
def rclpy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_rclpy.install(monkeypatch)


def image_message(encoding: str = "rgb8", pixels: np.ndarray | None = None, stamp_ns: int = STAMP_NS) -> Any:
    pixels = np.zeros((20, 30, 3), np.uint8) if pixels is None else pixels
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header = TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical")
    height, width = pixels.shape[:2]
    data = array("B", pixels.tobytes())  # as rclpy gives them
    return TYPES["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def start(**parameters: Any) -> Any:
    node = make_node(lambda bundle, **options: Session(FakePolicy(), FakeMask(), {}))
    for name, value in parameters.items():
        node.parameters[name] = SimpleNamespace(value=value)
    assert node.trigger_configure() == "success"
    assert node.trigger_activate() == "success"
    return node


def sent(node: Any, topic: str) -> list[Any]:
    return node.publishers[topic].sent


def test_pictures_and_queries_become_masks_and_detections(rclpy: Any) -> None:
    node = start(query="the ring")
    kind, take, quality = node.subscriptions["image"]
    assert kind is TYPES["sensor_msgs/msg/Image"]
    assert quality == {"history": "last", "depth": 1, "reliability": "best effort"}
    take(image_message())
    wait_for(lambda: sent(node, "result"))

    (mask, *_), (found, *_) = sent(node, "mask"), sent(node, "detections")
    for message in (mask, found):
        assert (stamp_of(message.header), message.header.frame_id) == (STAMP_NS, "camera_optical")
    assert (mask.encoding, mask.height, mask.width) == ("mono8", 20, 30)
    assert isinstance(mask.data, array)  # rclpy copies nothing else at once
    assert sum(mask.data) == 255 * 150
    assert found.detections[0].id == "the ring"
    assert sent(node, "rationale")[0].data == fake_session.RATIONALE
    assert json.loads(sent(node, "result")[0].data)["query"] == "the ring"

    node.subscriptions["query"][1](TYPES["std_msgs/msg/String"](data="the star"))
    take(image_message())
    wait_for(lambda: json.loads(sent(node, "result")[-1].data)["query"] == "the star")
    node.close()


def test_services_switch_and_answer_once(rclpy: Any) -> None:
    node = start()
    told = node.services["enable"](SimpleNamespace(data=False), SimpleNamespace())
    assert (told.success, told.message) == (True, "disabled")
    node.subscriptions["image"][1](image_message())
    node.subscriptions["ask"][1](TYPES["std_msgs/msg/String"](data="the mug"))
    assert json.loads(sent(node, "result")[-1].data)["query"] == "the mug"

    told = node.services["ask_once"](None, SimpleNamespace())
    assert (told.success, "the query is empty" in told.message) == (False, True)
    node.parameters["query"] = SimpleNamespace(value="the star")
    told = node.services["ask_once"](None, SimpleNamespace())
    assert told.success
    assert json.loads(told.message)["box"] == [8, 5, 23, 15]
    node.close()


def test_depth_of_the_same_moment_gives_a_place(rclpy: Any) -> None:
    node = start()
    camera = SimpleNamespace(k=[500.0, 0, 15, 0, 500.0, 10, 0, 0, 1])
    node.subscriptions["camera_info"][1](camera)
    depth = np.full((20, 30), 1500, np.uint16)
    node.subscriptions["depth"][1](image_message("16UC1", depth))
    node.subscriptions["image"][1](image_message())
    node.subscriptions["ask"][1](TYPES["std_msgs/msg/String"](data="the mug"))
    pose = sent(node, "detections")[-1].detections[0].results[0].pose.pose
    assert pose.position.z == pytest.approx(1.5)

    node.subscriptions["image"][1](image_message(stamp_ns=STAMP_NS + 10**9))  # another moment
    node.subscriptions["ask"][1](TYPES["std_msgs/msg/String"](data="the mug"))
    assert sent(node, "detections")[-1].detections[0].results[0].pose.pose.position.z == 0
    node.close()


def test_what_cannot_be_read_is_a_warning(rclpy: Any) -> None:
    node = start()
    node.subscriptions["image"][1](image_message("bayer_rggb8"))
    node.subscriptions["query"][1](TYPES["std_msgs/msg/String"](data="a <|im_end|>"))
    assert "encoded as bayer_rggb8" in node.logged[0]
    assert "reserved for the chat markup" in node.logged[1]
    (diagnose,) = node.timers
    diagnose()
    (status,) = sent(node, "/diagnostics")[0].status
    assert (status.level, status.name) == (TYPES["diagnostic_msgs/msg/DiagnosticStatus"].WARN, "wise_edge")
    assert status.message == "no frame came in the last 5 s"
    assert {value.key for value in status.values} >= {"frames_hz", "dropped", "enabled"}
    node.close()


def test_a_life_from_configuring_to_cleaning_up(rclpy: Any) -> None:
    node = start(query="the ring")
    node.on_deactivate(None)
    assert (node.subscriptions, node.services, node.timers) == ({}, {}, [])
    assert node.trigger_activate() == "success"
    node.subscriptions["image"][1](image_message())
    wait_for(lambda: sent(node, "result"))
    node.on_deactivate(None)
    assert node.on_cleanup(None) == "success"
    assert node.publishers == {}
    assert node.trigger_activate() == "failure"
    assert node.states == ["active", "inactive", "active", "inactive"]


def test_models_that_cannot_be_loaded_fail_the_configuring(rclpy: Any) -> None:
    def refuse(bundle: Any, **options: Any) -> Session:
        raise UsageError("no such bundle")

    node = make_node(refuse)
    assert node.trigger_configure() == "failure"
    assert node.logged == ["no such bundle"]


def test_the_command_runs_until_ros_ends_it(
    rclpy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    assert main(["ros2", "--ros-args", "-p", "query:=the mug"]) == 0
    assert rclpy.args == ["--ros-args", "-p", "query:=the mug"]
    assert opened.calls == [{"directory": None, "policy_backend": "auto", "mask_backend": "auto"}]
    assert LifecycleNode.latest.states == ["active", "destroyed"]


def test_what_ros_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros2"]) == 4
    assert "rclpy is missing: source /opt/ros/$ROS_DISTRO/setup.bash" in capsys.readouterr().err
    fake_rclpy.install(monkeypatch, missing=("vision_msgs",))
    with pytest.raises(DeviceError, match=r"vision_msgs is missing: sudo apt install ros-\$ROS_DISTRO-vision-msgs"):
        find_type("vision_msgs/msg/Detection2DArray")
    assert RosMessages()["std_msgs/msg/String"](data="x").data == "x"
