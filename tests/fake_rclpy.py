"""A stand-in for rclpy and the message packages: what the adapter uses of them, in one process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from wise_edge.robot.messages import VISION_MSGS

STORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _definition in VISION_MSGS.items():
    STORE.register(get_types_from_msg(_definition, _name))
TYPES = STORE.types


@dataclass
class Publisher:
    kind: Any
    topic: str
    sent: list[Any] = field(default_factory=list)

    def publish(self, message: Any) -> None:
        self.sent.append(message)


class LifecycleNode:
    """Calls back when a test says so."""

    latest: LifecycleNode

    def __init__(self, name: str) -> None:
        self.name, self.parameters = name, {}
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, tuple[Any, Callable[[Any], None], Any]] = {}
        self.services: dict[str, Callable[[Any, Any], Any]] = {}
        self.timers: list[Callable[[], None]] = []
        self.logged: list[str] = []
        self.states: list[str] = []
        LifecycleNode.latest = self

    def declare_parameter(self, name: str, value: Any) -> None:
        self.parameters[name] = SimpleNamespace(value=value)

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

    def destroy_subscription(self, topic: str) -> None:
        del self.subscriptions[topic]

    def destroy_service(self, name: str) -> None:
        del self.services[name]

    def destroy_timer(self, timer: Any) -> None:
        self.timers.remove(timer)

    def destroy_publisher(self, publisher: Publisher) -> None:
        del self.publishers[publisher.topic]

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.logged.append, warning=self.logged.append)

    def get_clock(self) -> Any:
        stamp = TYPES["builtin_interfaces/msg/Time"](sec=5, nanosec=6)
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: stamp))

    def get_name(self) -> str:
        return self.name

    def trigger_configure(self) -> str:
        return str(self.on_configure(None))  # type: ignore[attr-defined]

    def trigger_activate(self) -> str:
        return str(self.on_activate(None))

    def on_activate(self, state: Any) -> str:
        self.states.append("active")
        return "success"

    def on_deactivate(self, state: Any) -> str:
        self.states.append("inactive")
        return "success"

    def destroy_node(self) -> None:
        self.states.append("destroyed")


class SetBool:
    """Of std_srvs, which are no messages."""


class Trigger:
    """Likewise."""


def install(monkeypatch: pytest.MonkeyPatch, *, missing: tuple[str, ...] = ()) -> Any:
    """Let rclpy and the packages of messages be found, but for some; return rclpy."""

    def module(name: str, **members: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    class ExternalShutdownException(Exception):
        pass

    class Executor:
        def add_node(self, node: Any) -> None:
            self.node = node

        def spin(self) -> None:
            raise ExternalShutdownException

    rclpy = module("rclpy", init=lambda args: rclpy.__dict__.update(args=args), try_shutdown=lambda: None)
    answers = SimpleNamespace(SUCCESS="success", FAILURE="failure")
    module("rclpy.lifecycle", LifecycleNode=LifecycleNode, TransitionCallbackReturn=answers)
    quality = SimpleNamespace(KEEP_LAST="last", BEST_EFFORT="best effort")
    module("rclpy.qos", QoSProfile=lambda **of: of, HistoryPolicy=quality, ReliabilityPolicy=quality)
    module("rclpy.callback_groups", ReentrantCallbackGroup=object)
    module("rclpy.executors", MultiThreadedExecutor=Executor, ExternalShutdownException=ExternalShutdownException)
    packages: dict[str, dict[str, Any]] = {}
    for name, kind in TYPES.items():
        package, _, short = name.split("/")
        packages.setdefault(package, {})[short] = kind
    for package, members in packages.items():
        if package not in missing:
            module(f"{package}.msg", **members)
    module("std_srvs.srv", SetBool=SetBool, Trigger=Trigger)
    return rclpy
