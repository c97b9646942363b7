"""A node on fakes whose policy answers when a test allows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tracking_fakes import make, square_image
from waiting import wait_for
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult

NS = 1_700_000_000_123_456_789  # a stamp that no float64 in seconds holds
STEP_NS = 33_333_333


def make_frame(number: int, left: int = 10) -> Frame:
    return Frame.of(square_image(left), NS + number * STEP_NS, "camera_color_optical_frame")


class Harness:
    """A node whose policy answers when a test allows it."""

    def __init__(self, **options: object) -> None:
        self.session, self.policy = make()
        self.results: list[NodeResult] = []
        self.node = Node(self.session, self.results.append, **options)  # type: ignore[arg-type]

    def allow(self, times: int = 1, word: str = "answer") -> None:
        for _ in range(times):
            self.policy.allowed.put(word)

    def wait(self, count: int) -> None:
        wait_for(lambda: len(self.results) >= count)


@contextmanager
def running(**options: object) -> Iterator[Harness]:
    harness = Harness(**options)
    with harness.node:
        yield harness


@contextmanager
def following(**options: object) -> Iterator[Harness]:
    """A node that follows the square and has published it on the first frame."""
    with running(**options) as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(make_frame(0))
        harness.wait(1)
        yield harness
