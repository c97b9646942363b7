"""Measures a node with a camera at 30 Hz and a slower policy: age of results, cost of the node, memory.

    python benchmarks/robot_camera.py [--seconds 600] [--slow-ms 150] [--json]

Runs the embedded models on a panning scene; the policy takes at least `--slow-ms` per grounding, like a larger
one. The node's own cost is the time from a frame's arrival to its result, with stand-ins for policy and
segmenter that take almost none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from figures import make_parser, print_figures

from fake_session import FakeMask, FakePolicy
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

RATE_HZ = 30


class SlowPolicy:
    """Wraps a policy so that a completion takes at least some time."""

    def __init__(self, policy: object, least_s: float) -> None:
        self._policy, self._least_s = policy, least_s

    def __getattr__(self, name: str) -> object:
        return getattr(self._policy, name)

    def generate(self, *arguments: object) -> object:
        """Generate, then wait for the rest of the time."""
        end = time.monotonic() + self._least_s
        output = self._policy.generate(*arguments)  # type: ignore[attr-defined]
        while time.monotonic() < end:
            arguments[-1].check_cancelled()  # type: ignore[attr-defined]
            time.sleep(0.002)
        return output


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def pan(image: np.ndarray) -> Iterator[np.ndarray]:
    number = 0
    while True:
        yield np.roll(image, number % image.shape[1], axis=1)
        number += 1


class Run(NamedTuple):
    """The last few hundred results, every result's delay, the memory every ten seconds, and the node."""

    results: list[NodeResult]
    delays_ms: list[float]
    memory_mb: list[float]
    node: Node


def run(session: Session, seconds: float, image: np.ndarray, query: str) -> Run:
    """Ground `query` in a panning `image` at 30 Hz for so long."""
    results: list[NodeResult] = []
    delays_ms: list[float] = []

    def publish(result: NodeResult) -> None:
        delays_ms.append((time.time_ns() - result.stamp_ns) / 1e6)
        results.append(result)
        if len(results) > 512:
            del results[:256]

    memory_mb: list[float] = []
    node = Node(session, publish)
    with node:
        node.follow(query)
        begin = time.monotonic()
        for number, picture in enumerate(pan(image)):
            due = begin + number / RATE_HZ
            if due > begin + seconds:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            node.put(Frame.of(picture, time.time_ns(), "camera"))
            if number % (10 * RATE_HZ) == 0:
                memory_mb.append(resident_mb())
    return Run(results, delays_ms, memory_mb, node)


def own_cost_ms(frames: int = 2000) -> float:
    """The node's time for a frame with models that take none."""
    came = threading.Semaphore(0)
    delays: list[float] = []

    def publish(result: NodeResult) -> None:
        delays.append(result.delay_ms)
        came.release()

    image = np.zeros((480, 640, 3), np.uint8)
    with Node(Session(FakePolicy(), FakeMask(), {}), publish) as node:
        node.follow("the mug")
        for number in range(frames):
            node.put(Frame.of(image, number, "camera"))
            came.acquire(timeout=1)
    return float(np.median(delays))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--slow-ms", type=float, default=150)
    options = parser.parse_args()
    session = Session.from_bundle()
    session.policy = SlowPolicy(session.policy, options.slow_ms / 1e3)  # type: ignore[assignment]
    example = SceneDataset("test")[0]
    results, delays_ms, memory_mb, node = run(session, options.seconds, example.image, example.query)
    told = node.diagnostics()
    grounding_ms = [r.latency_ms["total"] for r in results]
    ages_ms = [result.age_ms for result in results]
    figures = {
        "seconds": options.seconds,
        "frames": told.frames,
        "results": told.results,
        "dropped": told.dropped,
        "delay_ms_p50": float(np.percentile(delays_ms, 50)),
        "delay_ms_p99": float(np.percentile(delays_ms, 99)),
        "age_ms_p99": float(np.percentile(ages_ms, 99)),
        "grounding_ms_p50": float(np.median(grounding_ms)),
        "memory_mb_first": memory_mb[min(3, len(memory_mb) - 1)],
        "memory_mb_last": memory_mb[-1],
        "own_cost_ms": own_cost_ms(),
    }
    print_figures(figures, options.json)


if __name__ == "__main__":
    main()
