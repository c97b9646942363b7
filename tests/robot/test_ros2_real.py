"""The ROS 2 node on rclpy itself, where wheels of it exist: topics, services, parameters and transitions.

`make test` installs rclpy into its own environment, because its wheels restart each of its Python processes.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from locations import ROOT
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.session import Session

ROS = ROOT / ".venv" / "ros"
QUERY = "the red thing"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROS / ".installed").exists(), reason="no rclpy: make test installs it where it has wheels"),
]


def environment() -> dict[str, str]:
    """Return variables under which only nodes of this test find each other."""
    own = {"ROS_DOMAIN_ID": str(random.randint(1, 100)), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    own |= {"ROS_PYTHON_CHECK_FIELDS": "1"}  # a field of the wrong type is an error
    return os.environ | own | {"AMENT_PREFIX_PATH": str(ROS), "LD_LIBRARY_PATH": str(ROS / "lib")}


@contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a node, and stop it as Ctrl-C does."""
    with subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True) as node:
        try:
            yield node
            node.send_signal(signal.SIGINT)
            node.wait(timeout=60)
        finally:
            node.kill()


def be_robot(variables: dict[str, str], *options: str) -> dict[str, Any]:
    """Run the robot's side and return what it saw."""
    command = [str(ROS / "bin" / "python"), "tests/support/robot/ros_client.py", *options]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def start(*parameters: str) -> list[str]:
    return [str(ROS / "bin" / "python"), "-m", "wise_edge", "ros2", "--ros-args", *parameters]


def test_a_robot_uses_topics_services_parameters_and_transitions() -> None:
    variables = environment()
    with running(start("-p", f"query:={QUERY}"), variables) as node:
        outcome = be_robot(variables)
    assert node.returncode == 0

    example = SceneDataset("test")[0]
    expected = Session.from_bundle().segment(example.image, QUERY).mask
    assert expected is not None
    assert outcome["state"] == "active"
    inside = outcome["mask"].pop("inside")  # of a followed mask or of a grounded one
    assert abs(inside - int(expected.sum())) < 0.05 * expected.sum()
    height, width = expected.shape
    assert outcome["mask"] == {
        "size": [width, height],
        "encoding": "mono8",
        "frame_id": "camera_optical",
        "stamp_is_an_images": True,
    }
    assert outcome["placed"]["center_m"][2] == pytest.approx(1.5)
    columns = np.nonzero(expected)[1]
    assert outcome["placed"]["center_m"][0] == pytest.approx((columns.mean() - width / 2) * 1.5 / 200, abs=0.02)
    assert (outcome["other"], outcome["asked"]) == ("the green thing", False)
    assert outcome["once"] == {"success": True, "query": "the green thing"}  # the topic's query is the parameter too
    assert outcome["disabled"] == [True, "disabled", True]
    assert (outcome["set"], outcome["by_parameter"]) == (True, QUERY)
    assert outcome["diagnostics"] == {"name": "/wise_edge", "level": "00"}
    assert outcome["deactivated"] == ["inactive", True]
    assert outcome["refused"] == [False, "wise-edge is not active; activate it first"]
    assert (outcome["activated"], outcome["remembered"]) == ("active", QUERY)
    assert outcome["again"] == ["inactive", "unconfigured", "inactive", "active"]
    assert outcome["ended"] == ["finalized", True]


def test_detections_are_what_vision_msgs_has(tmp_path: Path) -> None:
    command = [str(ROS / "bin" / "python"), "tests/support/robot/ros_vision_msgs.py", str(tmp_path / "generated")]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "classes": ["vision_msgs"],
        "box": [4.0, 2.0, 4.0, 2.0],
        "id": "the mug",
        "place": [1.5, 0.1],
    }


@pytest.mark.parametrize(
    ("parameters", "code", "line"),
    [
        (("-p", "bundle:=/nowhere"), 2, "/nowhere"),
        (("-p", "variant:=wise-s", "-p", "deadline_ms:=80"), 2, "a deadline chooses the variant"),
        (("-p", "deadline_ms:=soon"), 2, "the parameter deadline_ms must be a number, not 'soon'"),
        (("-p", "query:="), 2, "ROS cannot parse its arguments"),
    ],
)
def test_a_failed_start_is_one_line_and_an_exit_code(parameters: tuple[str, ...], code: int, line: str) -> None:
    done = subprocess.run(
        start(*parameters), env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_the_launch_file_starts_a_working_node(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"image": "image", "depth": "depth", "camera_info": "camera_info", "query": QUERY, "deadline_ms": "0"}
    arguments |= {"executable": str(ROS / "bin" / "wise-edge")}
    variables = environment()
    with running(launch(monkeypatch, arguments), variables) as node:
        assert be_robot(variables, "state")["state"] == "active"
    assert node.returncode == 0


def launch(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> list[str]:
    """Return the command of the launch file; ROS's launch has no wheels, so this emulates it."""
    defaults: dict[str, str] = {}

    def declare(name: str, default_value: str) -> None:
        defaults[name] = default_value

    class Configuration:
        def __init__(self, name: str) -> None:
            self._name = name

        def perform(self, context: object) -> str:
            return (defaults | given)[self._name]

    def act(function: Callable[[object], list[list[str]]]) -> list[str]:
        (command,) = function(None)
        return command

    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)

    module("launch", LaunchDescription=lambda entities: entities[-1])
    module("launch.actions", DeclareLaunchArgument=declare, ExecuteProcess=lambda cmd, output: cmd, OpaqueFunction=act)
    module("launch.substitutions", LaunchConfiguration=Configuration)
    described = runpy.run_path(str(ROOT / "examples" / "ros2" / "wise_edge.launch.py"))["generate_launch_description"]
    command: list[str] = described()
    return command
