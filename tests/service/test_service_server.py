"""The service as a server: many clients, misbehaving ones, and a shutdown that loses no query."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service_client import ask, pixels_of, png, together
from service_process import fake_command, fake_environment, fake_process, fakes, process
from waiting import wait_for
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.session import Session


@pytest.mark.slow
@pytest.mark.parametrize(("host", "url"), [("127.0.0.2", "http://127.0.0.2:"), ("0:0::1", "http://[::1]:")])
def test_the_address_that_is_announced_is_answered(host: str, url: str) -> None:
    with process("--host", host) as (_, announced):
        assert announced.startswith(url)
        with httpx.Client(base_url=announced, timeout=30) as client:
            assert ask(client, headers={"origin": announced}).status_code == 200
            assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 403


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of the command on the embedded models."""
    with process() as (_, address):
        yield address


@pytest.fixture(scope="module")
def fake_server() -> Iterator[tuple[str, int]]:
    """Host and port of a server of eight connections on fakes."""
    with fakes() as address:
        yield address


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.slow
def test_connections_without_a_whole_head_are_let_go() -> None:
    answered = [HEALTH + b"\r\nGET / HT", HEALTH + b"Content-Length: 9000\r\n\r\n"]
    with fakes(head_s=2) as (host, port), ExitStack() as stack:
        sleepers: list[socket.socket] = []
        for place, beginning in enumerate([*answered, *answered, b"GET / HT", b"GET / HT", b"", b""]):
            source = (f"127.0.0.{2 + place // 4}", 0)
            sleepers.append(stack.enter_context(socket.create_connection((host, port), source_address=source)))
            sleepers[-1].sendall(beginning)
            if beginning in answered:
                assert sleepers[-1].recv(10_000).startswith(b"HTTP/1.1 200")
            sleepers[-1].setblocking(False)
        left = set(sleepers)

        def dribble() -> bool:
            for sleeper in list(left):
                try:
                    if sleeper not in sleepers[6:]:
                        sleeper.send(b"a")
                    gone = not sleeper.recv(10_000)
                except BlockingIOError:
                    gone = False
                except OSError:
                    gone = True
                if gone:
                    left.remove(sleeper)
            return not left

        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 503
        wait_for(dribble)
        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
def test_clients_are_told_apart_by_address_and_by_a_trusted_proxys_word(proxies: tuple[str, ...]) -> None:
    with fake_process(proxies=proxies) as (_, url), ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        sent = {"files": {"image": png()}, "data": {"query": "wait until you are cancelled"}}
        body = httpx.Request("POST", f"{url}/v1/segment", **sent)
        # Of 4 that may wait one client may hold 3, and one more runs.
        for place in range(4):
            waiting = HTTPConnection(host, int(port))
            stack.callback(waiting.close)
            waiting.request(
                "POST", "/v1/segment", body.read(), dict(body.headers) | {"x-forwarded-for": f"10.0.0.{place}"}
            )
        wait_for(lambda: "wise_edge_waiting 4.0" in httpx.get(f"{url}/metrics").text)
        fifth = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        headers = {"x-forwarded-for": "10.0.0.9", "accept": "text/event-stream"}
        with fifth.stream("POST", "/v1/segment", headers=headers, **sent) as answer:
            assert answer.status_code == (200 if proxies else 429)


@pytest.mark.slow
def test_a_client_that_reads_nothing_does_not_delay_the_end() -> None:
    with fake_process() as (running, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as deaf, socket.socket() as streamed:
            for client, path in ((deaf, b"/"), (streamed, b"/docs")):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((host, int(port)))
                client.setblocking(False)
                with suppress(BlockingIOError):  # the service reads no further while it cannot write
                    for _ in range(100_000):
                        client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            os.kill(running.pid, signal.SIGTERM)
            assert running.wait(timeout=30) == 0


@pytest.mark.slow
def test_an_answer_may_take_longer_than_a_head() -> None:
    with fakes(head_s=0.5) as (host, port), httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
        assert client.get("/healthz").status_code == 200
        assert ask(client, "take a second").status_code == 200


@pytest.mark.slow
def test_one_address_does_not_hold_all_connections(fake_server: tuple[str, int]) -> None:
    host, port = fake_server
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection((host, port), source_address=("127.0.0.2", 0)))
        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 200


@pytest.mark.slow
def test_queries_of_clients_that_left_end_whether_they_run_or_wait(fake_server: tuple[str, int]) -> None:
    host, port = fake_server
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:

        def waits(count: int) -> bool:
            return f"wise_edge_waiting {count}.0" in client.get("/metrics").text

        sent = {"files": {"image": png()}, "data": {"query": "wait until you are cancelled"}}
        request = httpx.Request("POST", f"http://{host}:{port}/v1/segment", **sent)
        leavers = [HTTPConnection(host, port) for _ in range(3)]
        for leaver in leavers:
            leaver.request("POST", "/v1/segment", request.read(), dict(request.headers))
        wait_for(lambda: waits(3))
        for leaver in leavers:
            leaver.close()
        wait_for(lambda: waits(0))
        assert ask(client).status_code == 200
        counted = client.get("/metrics").text
        assert 'wise_edge_requests_total{path="/v1/segment",status="499"} 3.0' in counted
        assert 'status="5' not in counted


def resident_kb(pid: int) -> int:
    """Return the anonymous memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kB that decompresses to any size."""
    buffer = io.BytesIO()
    Image.new("1", (width, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[20:24] = height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.slow
def test_bodies_of_ten_megabytes_and_bombs_leave_nothing_behind() -> None:
    with process() as (running, url), httpx.Client(base_url=url, timeout=30) as client:

        def post(image: bytes) -> int:
            return client.post("/v1/segment", files={"image": image}, data={"query": "the ring"}).status_code

        def abuse() -> list[int]:
            nested = client.post("/v1/frames/x/segment", content=b"[" * 9_000_000)
            noise = [post(os.urandom(9_900_000)), post(os.urandom(10_100_000))]
            return [*noise, post(bomb(60_000, 60_000)), post(bomb(5000, 5000)), nested.status_code]

        assert post(png(224, 224)) == 200
        for _ in range(2):  # the largest image is kept, and memory for decoding it too
            assert abuse() == [400, 413, 400, 200, 413]
        before_kb = resident_kb(running.pid)
        for _ in range(5):
            abuse()
        assert resident_kb(running.pid) < before_kb + 30_000
        assert post(png(224, 224)) == 200


def test_a_head_is_answered_like_a_get_without_a_body(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for path in ("/", "/docs", "/healthz", "/readyz", "/example.png"):
            head, whole = client.head(path), client.get(path)  # on one connection, which a stray body would spoil
            assert (head.status_code, head.content, len(whole.content) > 0) == (200, b"", True)
            assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
        assert client.head("/v1/segment").status_code == 405


@pytest.mark.slow
def test_eight_clients_get_right_answers(url: str) -> None:
    dataset, session = SceneDataset("test"), Session.from_bundle()
    examples = [dataset[place] for place in range(8)]
    expected = [session.segment(example.image, example.query) for example in examples]

    def client(place: int) -> list[dict[str, Any]]:
        buffer = io.BytesIO()
        Image.fromarray(examples[place].image).save(buffer, "PNG")
        with httpx.Client(base_url=url, timeout=60) as http:
            fields = {"data": {"query": examples[place].query}, "files": {"image": buffer.getvalue()}}
            return [http.post("/v1/segment", **fields).json() for _ in range(3)]

    for place, each in enumerate(together(8, client)):
        for answer in each:
            assert answer["box"] == list(expected[place].box or ())
            mask = expected[place].mask
            assert mask is not None
            assert np.array_equal(pixels_of(answer["mask"]), mask)


@pytest.mark.slow
def test_sigterm_lets_a_query_end_and_the_exit_code_is_0() -> None:
    with process() as (running, url):
        received: list[str] = []

        def client() -> None:
            with httpx.stream(
                "POST",
                f"{url}/v1/segment",
                headers={"accept": "text/event-stream"},
                files={"image": png(224, 224)},
                data={"query": "the red ring", "variant": "verbose"},
                timeout=60,
            ) as answer:
                for line in answer.iter_lines():
                    received.append(line)
                    if len(received) == 1:
                        os.kill(running.pid, signal.SIGTERM)

        client()
        assert running.wait(timeout=30) == 0
        assert "event: result" in received


@pytest.mark.slow
def test_a_query_that_does_not_end_does_not_keep_the_process() -> None:
    with fake_process(query_s=1) as (running, url):
        sent = {"files": {"image": png()}, "data": {"query": "hang"}}
        assert httpx.post(f"{url}/v1/segment", timeout=30, **sent).status_code == 503  # its engine goes on
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 4
        assert running.stderr is not None
        assert "a query does not end: its engine hangs" in running.stderr.read()


@pytest.mark.slow
def test_a_first_query_that_does_not_end_ends_the_start() -> None:
    command = fake_command(60, 1, "the object")  # the warm-up query
    done = subprocess.run(command, env=fake_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the first query was not answered within 1 s; raise --time-limit" in done.stderr


SLOW_BODY = (
    b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 1000\r\n\r\n--b\r\n"
)


@pytest.mark.slow
def test_slow_and_half_open_clients_do_not_keep_others_waiting(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        sleepers = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(30)]
        for sleeper in sleepers[:10]:
            sleeper.sendall(SLOW_BODY)
        for sleeper in sleepers[10:20]:
            sleeper.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        answer = httpx.post(f"{url}/v1/segment", files={"image": png()}, data={"query": "the red ring"}, timeout=30)
        assert answer.status_code == 200
        for sleeper in sleepers[:10]:  # which are still sending their bodies
            sleeper.setblocking(False)
            with pytest.raises(BlockingIOError):
                sleeper.recv(1)
    assert httpx.get(f"{url}/healthz").status_code == 200
