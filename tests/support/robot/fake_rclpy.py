"""A fake of rclpy and the message packages in one process, for cases that tests on the real rclpy cannot reach.

vision_msgs is not on any package index, and tests can cause failures here at will. `test_ros2_real.py` runs the node on
the real rclpy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ros_types import TYPES

GIVEN: dict[str, Any] = {}
"""Parameters from the command line."""


@dataclass
class Publisher:
    kind: Any
    topic: str
    sent: list[Any] = field(default_factory=list)

    def publish(self, message: Any) -> None:
        self.sent.append(message)


class LifecycleNode:
    """Calls back when a test asks it to."""

    latest: LifecycleNode

    def __init__(self, name: str) -> None:
        self.name, self.parameters = name, {name: SimpleNamespace(value=value) for name, value in GIVEN.items()}
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, tuple[Any, Callable[[Any], None], Any]] = {}
        self.services: dict[str, Callable[[Any, Any], Any]] = {}
        self.timers: list[Callable[[], None]] = []
        self.logged: list[str] = []
        self.states: list[str] = []
        LifecycleNode.latest = self

    def declare_parameter(self, name: str, value: Any, descriptor: Any) -> None:
        assert descriptor.description
        self.parameters.setdefault(name, SimpleNamespace(value=value))

    def add_on_set_parameters_callback(self, take: Callable[[list[Any]], Any]) -> None:
        self.take_parameters = take

    def set_parameters(self, parameters: list[Any]) -> None:
        if self.take_parameters(parameters).successful:
            self.parameters |= {parameter.name: parameter for parameter in parameters}

    def get_parameter(self, name: str) -> Any:
        return self.parameters[name]

    def create_publisher(self, kind: Any, topic: str, quality: Any) -> Publisher:
        return self.publishers.setdefault(topic, Publisher(kind, topic))

    create_lifecycle_publisher = create_publisher

    def create_subscription(self, kind: Any, topic: str, take: Any, quality: Any, *, callback_group: Any) -> str:
        self.subscriptions[topic] = (kind, take, quality)
        return topic

    def create_service(self, kind: Any, name: str, answer: Any, *, callback_group: Any) -> str:
        self.services[name] = answer
        return name

    def create_timer(self, period: float, act: Callable[[], None], *, callback_group: Any) -> Any:
        self.timers.append(act)
        return act

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.logged.append, warning=self.logged.append)

    def get_clock(self) -> Any:
        stamp = TYPES["builtin_interfaces/msg/Time"](sec=5, nanosec=6)
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: stamp))

    def get_fully_qualified_name(self) -> str:
        return f"/{self.name}"

    def trigger_configure(self) -> str:
        return str(self.on_configure(None))

    def trigger_activate(self) -> str:
        return str(self.on_activate(None))

    def on_configure(self, state: Any) -> str:
        return self._enter("configured")

    def on_activate(self, state: Any) -> str:
        return self._enter("active")

    def on_deactivate(self, state: Any) -> str:
        return self._enter("inactive")

    def on_cleanup(self, state: Any) -> str:
        return self._enter("unconfigured")

    def _enter(self, state: str) -> str:
        self.states.append(state)
        return "success"

    def destroy_node(self) -> None:
        self.states.append("destroyed")


class SetBool:
    """The service of std_srvs; services are not messages."""


class Trigger:
    """The service of std_srvs."""


class Parameter:
    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value


def install(monkeypatch: pytest.MonkeyPatch, *, missing: tuple[str, ...] = (), **parameters: Any) -> Any:
    """Make rclpy and the message packages importable, except `missing`, and set parameters; return rclpy."""
    monkeypatch.setattr(sys.modules[__name__], "GIVEN", parameters)

    def module(name: str, **members: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    class ExternalShutdownException(Exception):
        pass

    class Executor:
        def __init__(self, num_threads: int) -> None:
            assert num_threads > 1

        def add_node(self, node: Any) -> None:
            self.node = node

        def shutdown(self) -> None:
            pass

        def spin(self) -> None:
            raise ExternalShutdownException

    rclpy = module("rclpy", init=lambda args: rclpy.__dict__.update(args=args), try_shutdown=lambda: None)
    answers = SimpleNamespace(SUCCESS="success", FAILURE="failure")
    module("rclpy.lifecycle", LifecycleNode=LifecycleNode, TransitionCallbackReturn=answers)
    quality = SimpleNamespace(KEEP_LAST="last", BEST_EFFORT="best effort")
    module("rclpy.qos", QoSProfile=lambda **of: of, HistoryPolicy=quality, ReliabilityPolicy=quality)
    module("rclpy.callback_groups", MutuallyExclusiveCallbackGroup=object)
    module("rclpy.parameter", Parameter=Parameter)
    module("rcl_interfaces.msg", ParameterDescriptor=SimpleNamespace, SetParametersResult=SimpleNamespace)
    module("rclpy.executors", MultiThreadedExecutor=Executor, ExternalShutdownException=ExternalShutdownException)
    packages: dict[str, dict[str, Any]] = {}
    for name, kind in TYPES.items():
        package, _, short = name.split("/")
        packages.setdefault(package, {})[short] = kind
    for package, members in packages.items():
        if package not in (*missing, "rcl_interfaces"):  # its fields have defaults only in rclpy
            module(f"{package}.msg", **members)
    module("std_srvs.srv", SetBool=SetBool, Trigger=Trigger)
    return rclpy
