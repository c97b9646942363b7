"""Loads `wise-edge serve` on loopback with clients: checks answers and errors, measures waits and throughput.

    python benchmarks/service_load.py [--seconds 300] [--clients 8] [--json]

Each client queries its own scenes one after the other, each with a new image, and compares every answer with the
session's. The session alone, in its own process and without HTTP, is measured before and after; clients run on the same
cores as the service. 429 is not an error: the client waits as long as the response says.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx
import numpy as np
from figures import make_parser, print_figures
from PIL import Image

from wise_edge.datasets.base import Example
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session

SCENES = 4  # of each client
ALONE_S = 10.0


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def ask_fresh(session: Session, example: Example) -> SegmentationResult:
    """Ask on an image that is new to the session."""
    session.forget()
    return session.segment(example.image, example.query)


def ask_alone(session: Session, examples: list, seconds: float) -> float:
    """Return queries a second."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        example = examples[count % len(examples)]
        ask_fresh(session, example)
        count += 1
    return count / (time.perf_counter() - began)


class Client(NamedTuple):
    """What one client saw: its waits, and how many answers were wrong, refused as busy, or failed."""

    waits_ms: list[float]
    wrong: int
    busy: int
    failed: int


def be_client(url: str, asked: list[tuple[bytes, str, list[int]]], end_s: float) -> Client:
    waits_ms: list[float] = []
    wrong = busy = failed = 0
    with httpx.Client(base_url=url, timeout=120) as http:
        place = 0
        while time.perf_counter() < end_s:
            picture, query, box = asked[place % len(asked)]
            began = time.perf_counter()
            answer = http.post("/v1/segment", files={"image": picture}, data={"query": query})
            if answer.status_code == 429:
                busy += 1
                time.sleep(float(answer.headers["retry-after"]))
                continue
            waits_ms.append((time.perf_counter() - began) * 1e3)
            failed += answer.status_code != 200
            wrong += answer.status_code == 200 and answer.json()["box"] != box
            place += 1
    return Client(waits_ms, wrong, busy, failed)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    dataset = SceneDataset("test")
    examples = [dataset[place] for place in range(SCENES * options.clients)]
    session = Session.from_bundle()
    expected = [ask_fresh(session, example).box for example in examples]
    asked = [(encode(e.image), e.query, list(box or ())) for e, box in zip(examples, expected, strict=True)]
    alone_hz = [ask_alone(session, examples, ALONE_S)]
    command = [sys.executable, "-m", "wise_edge", "serve", "--port", "0", "--frames", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = server.stderr.readline().split()[-1]
        try:
            end_s = time.perf_counter() + options.seconds
            with ThreadPoolExecutor(options.clients) as pool:
                parts = [asked[place :: options.clients] for place in range(options.clients)]
                found = list(pool.map(lambda part: be_client(url, part, end_s), parts))
        finally:
            server.terminate()
            server.wait()
    alone_hz.append(ask_alone(session, examples, ALONE_S))
    waits_ms = [wait for client in found for wait in client.waits_ms]
    figures = {
        "seconds": options.seconds,
        "clients": options.clients,
        "answers": len(waits_ms),
        "wrong": sum(client.wrong for client in found),
        "failed": sum(client.failed for client in found),
        "busy_429": sum(client.busy for client in found),
        "wait_ms_p50": float(np.percentile(waits_ms, 50)),
        "wait_ms_p99": float(np.percentile(waits_ms, 99)),
        "service_hz": len(waits_ms) / options.seconds,
        "alone_hz": float(np.mean(alone_hz)),
        "exit_code": server.returncode,
    }
    figures["throughput_ratio"] = figures["service_hz"] / figures["alone_hz"]
    print_figures(figures, options.json)


if __name__ == "__main__":
    main()
