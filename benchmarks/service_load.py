"""Loads `wise-edge serve` on loopback with clients: checks answers and errors, measures waits and throughput.

    python benchmarks/service_load.py [--seconds 300] [--clients 8] [--rough 0] [--json]

Each client queries its own scenes one after the other, each with a new image, and compares every answer with the
session's. The session alone, in its own process and without HTTP, is measured before and after; clients run on the same
cores as the service. 429 is not an error: the client waits as long as the response says.

Rough clients come in addition: they leave in the middle of a body or before the answer, send what is no picture, no
form or no HTTP, say one length and send another, and dribble. Every client has its own loopback address.
"""

from __future__ import annotations

import io
import itertools
import random
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx
import numpy as np
from figures import make_parser, print_figures, resident_mb
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


def be_client(url: str, asked: list[tuple[bytes, str, list[int]]], end_s: float, address: str) -> Client:
    waits_ms: list[float] = []
    wrong = busy = failed = 0
    with httpx.Client(base_url=url, timeout=120, transport=httpx.HTTPTransport(local_address=address)) as http:
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


def rough_requests(picture: bytes) -> list[tuple[bytes, float, bool]]:
    """Return what rough clients send: the bytes, the seconds between its halves, and whether they read the answer."""

    def post(body: bytes, kind: str = "multipart/form-data; boundary=b", length: int | None = None) -> bytes:
        head = f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body

    def form(image: bytes, query: bytes = b"the red ring") -> bytes:
        part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        return part % (b"image", b'; filename="i.png"', image) + part % (b"query", b"", query) + b"--b--\r\n"

    whole = form(picture)
    return [
        (post(whole)[: -len(whole) // 2], 0, False),  # leaves in the middle of the body
        (post(whole), 0, False),  # leaves before the answer
        (post(whole, length=2 * len(whole)), 0, True),  # says more than it sends
        (post(whole, length=len(whole) // 2), 0, True),  # sends more than it says
        (post(whole, length=10**12), 0, True),
        (post(form(b"GIF89a" + bytes(200))), 0, True),
        (post(form(picture[: len(picture) // 2])), 0, True),
        (post(form(picture, b"\xff\xfe")), 0, True),
        (post(form(picture, b"x" * 100_000)), 0, True),
        (post(whole, kind="application/json"), 0, True),
        (post(whole, kind="multipart/form-data"), 0, True),
        (post(b"[" * 50_000, kind="application/json"), 0, True),
        (b"POST /v1/segment HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 0, True),
        (b"\x16\x03\x01" + bytes(300), 0, True),  # TLS
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 0, True),
        (post(whole), 3, True),  # dribbles
    ]


def be_rough(url: str, picture: bytes, end_s: float, address: str) -> int:
    """Send rough requests until the time; return how many."""
    host, port = re.search(r"//(.+):(\d+)", url).groups()
    requests, chance = rough_requests(picture), random.Random(address)
    for count in itertools.count():
        if time.perf_counter() >= end_s:
            return count
        data, pause_s, reads = chance.choice(requests)
        try:
            with socket.create_connection((host, int(port)), timeout=5, source_address=(address, 0)) as stream:
                stream.sendall(data[: len(data) // 2])
                time.sleep(pause_s)
                stream.sendall(data[len(data) // 2 :])
                if reads:
                    stream.recv(1 << 16)
        except OSError:
            pass  # the service may hang up
    raise AssertionError


def count_errors(url: str) -> int:
    """Return how many answers had a status of 500 or above."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    return int(
        sum(float(count) for count in re.findall(r'wise_edge_requests_total{.*status="5\d\d"} ([\d.e+]+)', text))
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rough", type=int, default=0)
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
            began_s = time.perf_counter()
            end_s = began_s + options.seconds
            with ThreadPoolExecutor(options.clients + options.rough) as pool:
                addresses = [f"127.0.0.{number + 1}" for number in range(options.clients + options.rough)]
                calm = [
                    pool.submit(be_client, url, asked[place :: options.clients], end_s, addresses[place])
                    for place in range(options.clients)
                ]
                picture = asked[0][0]
                rough = [
                    pool.submit(be_rough, url, picture, end_s, address) for address in addresses[options.clients :]
                ]
                memory_mb = []
                for share in (0.2, 0.4, 0.6, 0.8, 1.0):
                    time.sleep(max(0.0, began_s + share * options.seconds - time.perf_counter()))
                    memory_mb.append(resident_mb(server.pid))
                found = [client.result() for client in calm]
                sent = sum(client.result() for client in rough)
            errors = count_errors(url)
        finally:
            server.terminate()
            server.wait()
    alone_hz.append(ask_alone(session, examples, ALONE_S))
    waits_ms = [wait for client in found for wait in client.waits_ms]
    figures = {
        "seconds": options.seconds,
        "clients": options.clients,
        "rough_clients": options.rough,
        "rough_requests": sent,
        "answers": len(waits_ms),
        "wrong": sum(client.wrong for client in found),
        "failed": sum(client.failed for client in found),
        "status_5xx": errors,
        "memory_mb_at_fifths": memory_mb,
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
