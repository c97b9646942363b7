"""The ROS 2 adapter on a fake of rclpy; `test_ros2_real.py` runs it on rclpy itself."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fake_rclpy
import fake_session
from fake_rclpy import LifecycleNode
from fake_session import FakeMask, FakePolicy
from ros_types import STAMP_NS, TYPES, image_message
from waiting import wait_for
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.robot.messages import stamp_of
from wise_edge.robot.ros2 import make_node
from wise_edge.robot.ros2_bridge import RosMessages
from wise_edge.runtimes.session import Session


@pytest.fixture
def rclpy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_rclpy.install(monkeypatch)


def camera_image(encoding: str = "rgb8", pixels: np.ndarray | None = None, stamp_ns: int = STAMP_NS) -> Any:
    message = image_message(np.zeros((20, 30, 3), np.uint8) if pixels is None else pixels, encoding, stamp_ns=stamp_ns)
    message.data = array("B", message.data.tobytes())  # the type that rclpy delivers
    return message


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts active nodes with parameters, and stops them."""
    with ExitStack() as nodes:

        def begin(**parameters: Any) -> Any:
            fake_rclpy.install(monkeypatch, **parameters)
            node = make_node(lambda bundle, **options: Session(FakePolicy(), FakeMask(), {}))
            nodes.callback(node.wise_edge.close)
            assert node.trigger_configure() == "success"
            assert node.trigger_activate() == "success"
            return node

        yield begin


Start = Callable[..., Any]


def sent(node: Any, topic: str) -> list[Any]:
    return node.publishers[topic].sent


def text(words: str) -> Any:
    return TYPES["std_msgs/msg/String"](data=words)


def test_images_and_queries_become_masks_and_detections(start: Start) -> None:
    node = start(query="the ring")
    kind, take, quality = node.subscriptions["image"]
    assert kind is TYPES["sensor_msgs/msg/Image"]
    assert quality == {"history": "last", "depth": 1, "reliability": "best effort"}
    take(camera_image())
    wait_for(lambda: sent(node, "result"))

    (mask, *_), (found, *_) = sent(node, "mask"), sent(node, "detections")
    for message in (mask, found):
        assert (stamp_of(message.header), message.header.frame_id) == (STAMP_NS, "camera")
    assert (mask.encoding, mask.height, mask.width) == ("mono8", 20, 30)
    assert isinstance(mask.data, array)  # the only type that rclpy copies in one step
    assert sum(mask.data) == 255 * 150
    assert found.detections[0].id == "the ring"
    assert found.detections[0].results[0].pose.covariance[0] == -1  # unknown place
    assert sent(node, "detections_3d")[0].detections == []
    assert sent(node, "rationale")[0].data == fake_session.RATIONALE
    assert json.loads(sent(node, "result")[0].data)["query"] == "the ring"

    node.subscriptions["query"][1](text("the star"))
    take(camera_image())
    wait_for(lambda: json.loads(sent(node, "result")[-1].data)["query"] == "the star")


def test_parameters_are_converted_to_their_types(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    node = start(deadline_ms=500, query=42, compressed=True)  # ROS reads 500 and 42 as integers
    assert node.subscriptions["image"][0] is TYPES["sensor_msgs/msg/CompressedImage"]
    assert node.wise_edge.value("deadline_ms") == 500.0
    assert node.wise_edge.value("query") == "42"
    for given, line in (
        ({"deadline_ms": "soon"}, "must be a number"),
        ({"compressed": 1}, "true or false"),
    ):
        fake_rclpy.install(monkeypatch, **given)
        assert main(["ros2"]) == 2
        assert line in capsys.readouterr().err


def test_a_standing_query_survives_a_deactivation(start: Start) -> None:
    node = start()
    node.subscriptions["query"][1](text("the star"))
    node.on_deactivate(None)
    assert node.trigger_activate() == "success"
    node.subscriptions["image"][1](camera_image())
    wait_for(lambda: sent(node, "result"))
    assert json.loads(sent(node, "result")[0].data)["query"] == "the star"


def test_an_invalid_standing_query_is_not_stored(start: Start) -> None:
    node = start(query="the ring")
    node.subscriptions["query"][1](text("a <|im_end|>"))
    assert node.wise_edge.value("query") == "the ring"
    node.on_deactivate(None)
    node.subscriptions["query"][1](text("x" * 2000))
    assert len(node.logged) == 2
    assert node.trigger_activate() == "success"


def test_a_recording_continues_over_a_deactivation(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    node = start(rerun=str(tmp_path / "log.rrd"), query="the ring")
    node.on_deactivate(None)
    assert node.trigger_activate() == "success"
    node.subscriptions["image"][1](camera_image())
    wait_for(lambda: sent(node, "result"))
    node.on_deactivate(None)
    node.on_cleanup(None)
    assert (tmp_path / "log.rrd").stat().st_size > 30 * 20 * 3
    assert node.trigger_configure() == "failure"  # it would be overwritten
    assert "log.rrd exists" in node.logged[-1]


def test_services_switch_and_answer_once(start: Start) -> None:
    node = start()
    response = node.services["enable"](SimpleNamespace(data=False), SimpleNamespace())
    assert (response.success, response.message) == (True, "disabled")
    node.subscriptions["image"][1](camera_image())
    node.subscriptions["ask"][1](text("the mug"))
    assert json.loads(sent(node, "result")[-1].data)["query"] == "the mug"

    response = node.services["ask_once"](None, SimpleNamespace(message=""))
    assert (response.success, "the query is empty" in response.message) == (False, True)
    node.set_parameters([fake_rclpy.Parameter("query", value="the star")])
    response = node.services["ask_once"](None, SimpleNamespace(message=""))
    assert response.success
    assert json.loads(response.message)["box"] == [8, 5, 23, 15]


def camera_info(width: int = 30, height: int = 20) -> Any:
    return SimpleNamespace(p=[500.0, 0, 15, 0, 0, 500.0, 10, 0, 0, 0, 1, 0], width=width, height=height)


def asked(node: Any, stamp_ns: int = STAMP_NS) -> tuple[Any, Any]:
    """Ask about an image; return the detection's pose with covariance, and the detections in space."""
    node.subscriptions["image"][1](camera_image(stamp_ns=stamp_ns))
    node.subscriptions["ask"][1](text("the mug"))
    pose = sent(node, "detections")[-1].detections[0].results[0].pose
    return pose, sent(node, "detections_3d")[-1].detections


@pytest.mark.parametrize("late_ns", [-15_000_000, 0, 15_000_000])
def test_depth_of_the_same_moment_gives_a_place(late_ns: int, start: Start) -> None:
    node = start()
    node.subscriptions["camera_info"][1](camera_info())
    depth = np.full((20, 30), 1500, np.uint16)
    for number in range(-3, 4):
        stamp_ns = STAMP_NS + late_ns + number * 33_000_000
        node.subscriptions["depth"][1](camera_image("16UC1", depth + 100 * abs(number), stamp_ns))
    pose, (found,) = asked(node)
    assert pose.pose.position.z == pytest.approx(1.5)  # of the nearest, before or after
    assert pose.covariance[0] == 0
    assert found.bbox.center.position.z == pytest.approx(1.5)
    assert found.bbox.size.x == pytest.approx(14 * 1.5 / 500)

    pose, found = asked(node, STAMP_NS + 10**9)  # another time
    assert (pose.covariance[0], found) == (-1, [])

    again_ns = STAMP_NS - 60 * 10**9  # a bag that is played again
    node.subscriptions["depth"][1](camera_image("16UC1", depth + 1000, again_ns))
    assert asked(node, again_ns)[0].pose.position.z == pytest.approx(2.5)


def test_mismatched_sizes_cost_the_place_and_not_the_mask(start: Start) -> None:
    node = start()
    node.subscriptions["depth"][1](camera_image("16UC1", np.full((20, 30), 1500, np.uint16)))
    node.subscriptions["camera_info"][1](camera_info(width=60, height=40))
    assert asked(node)[0].covariance[0] == -1
    assert "camera_info is for 60 x 40 pixels, the image has 30 x 20" in node.logged[-1]

    node.subscriptions["camera_info"][1](camera_info())
    node.subscriptions["depth"][1](camera_image("16UC1", np.full((10, 15), 1500, np.uint16), STAMP_NS + 10**9))
    assert asked(node, STAMP_NS + 10**9)[0].covariance[0] == -1
    assert "the depth image [10, 15] and the image [20, 30] differ in size" in node.logged[-1]
    assert sum(sent(node, "mask")[-1].data) == 255 * 150


def test_the_bits_that_a_camera_uses_are_said_when_they_change(start: Start) -> None:
    node = start()
    for largest in (4000, 3000, 4095, 60000, 100):
        node.subscriptions["image"][1](camera_image("mono16", np.full((20, 30), largest, np.uint16)))
    assert node.logged == [
        f"images of 16 bits are scaled by {bits} bits, the most that one has used so far" for bits in (12, 16)
    ]


def test_unreadable_messages_are_rare_warnings(start: Start) -> None:
    node = start()
    for _ in range(50):
        node.subscriptions["image"][1](camera_image("jpeg2000"))
    node.subscriptions["query"][1](text("a <|im_end|>"))
    node.subscriptions["camera_info"][1](SimpleNamespace(p=[0.0] * 12, width=30, height=20))
    assert len(node.logged) == 3
    assert "encoded as jpeg2000" in node.logged[0]
    assert "reserved for the chat markup" in node.logged[1]
    assert "focal lengths must be positive" in node.logged[2]
    (diagnose,) = node.timers
    diagnose()
    (status,) = sent(node, "/diagnostics")[0].status
    assert (status.level, status.name) == (TYPES["diagnostic_msgs/msg/DiagnosticStatus"].WARN, "/wise_edge")
    assert status.message == "no frame came in the last 5 s"
    assert {value.key for value in status.values} >= {"frames_hz", "dropped", "enabled"}


def test_an_engines_own_error_ends_no_callback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start()
    node.subscriptions["image"][1](camera_image())

    def lose(*about: Any) -> Any:
        raise RuntimeError("CUDA error 700")

    monkeypatch.setattr(FakePolicy, "generate", lose)
    node.subscriptions["ask"][1](text("the mug"))
    assert node.logged == ["RuntimeError: CUDA error 700"]
    response = node.services["ask_once"](None, SimpleNamespace(message=""))
    assert not response.success


def test_the_lifecycle_from_configuring_to_cleaning_up(start: Start) -> None:
    node = start(query="the ring")
    node.on_deactivate(None)
    node.subscriptions["image"][1](camera_image())
    response = node.services["ask_once"](None, SimpleNamespace(message=""))
    assert (response.success, response.message) == (False, "wise-edge is not active; activate it first")
    assert sent(node, "mask") == []
    assert node.trigger_activate() == "success"
    node.subscriptions["image"][1](camera_image())
    wait_for(lambda: sent(node, "result"))
    node.on_deactivate(None)
    assert node.on_cleanup(None) == "success"
    assert node.trigger_activate() == "failure"
    assert node.logged == ["the models are not loaded; configure the node first"]
    assert node.states == ["configured", "active", "inactive", "active", "inactive", "unconfigured"]


def test_models_that_cannot_be_loaded_fail_the_configuration(rclpy: Any) -> None:
    def refuse(bundle: Any, **options: Any) -> Session:
        raise UsageError("no such bundle")

    node = make_node(refuse)
    assert node.trigger_configure() == "failure"
    assert node.logged == ["no such bundle"]


def test_the_command_runs_until_ros_shuts_it_down(
    rclpy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    assert main(["ros2", "--ros-args", "-p", "query:=the mug"]) == 0
    assert rclpy.args == ["--ros-args", "-p", "query:=the mug"]
    assert opened.calls == [{"bundle": None, "policy_backend": "auto", "mask_backend": "auto", "pixels": None}]
    assert LifecycleNode.latest.states == ["configured", "active", "destroyed"]
    fake_rclpy.install(monkeypatch, pixels=7056)
    assert main(["ros2"]) == 0
    assert opened.calls[1]["pixels"] == 7056


def test_a_failed_start_ends_the_command_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    fake_rclpy.install(monkeypatch, variant="wise-s", deadline_ms=80.0)
    assert main(["ros2"]) == 2
    assert "a deadline chooses the variant" in capsys.readouterr().err
    fake_rclpy.install(monkeypatch, autostart=False, variant="wise-s", deadline_ms=80.0)
    assert main(["ros2"]) == 0
    assert LifecycleNode.latest.states == ["destroyed"]


def test_a_missing_ros_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros2"]) == 4
    assert "rclpy is missing: source /opt/ros/$ROS_DISTRO/setup.bash" in capsys.readouterr().err
    fake_rclpy.install(monkeypatch, missing=("std_srvs", "vision_msgs"))
    monkeypatch.setitem(sys.modules, "std_srvs.srv", None)
    assert main(["ros2"]) == 4
    assert "ROS package std_srvs is missing: sudo apt install ros-$ROS_DISTRO-std-srvs" in capsys.readouterr().err
    assert RosMessages()["std_msgs/msg/String"](data="x").data == "x"


def test_without_vision_msgs_masks_are_still_published(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rclpy.install(monkeypatch, missing=("vision_msgs",))
    node = make_node(lambda bundle, **options: Session(FakePolicy(), FakeMask(), {}))
    node.trigger_configure()
    node.trigger_activate()
    node.subscriptions["image"][1](camera_image())
    node.subscriptions["ask"][1](text("the mug"))
    node.wise_edge.close()
    assert len(sent(node, "mask")) == 1
    assert "detections" not in node.publishers
    assert "no detections: the ROS package vision_msgs is missing: sudo apt install" in node.logged[0]
