"""The access log says who asked for what and how it ended, but not what was in it."""

from __future__ import annotations

import fcntl
import re
import socket
import threading

import httpx
import pytest

from gated_service import serving
from service_client import ask, png
from service_process import process
from wise_edge.service.access_log import Log, Served


def test_each_request_has_a_line_without_its_query() -> None:
    lines: list[str] = []
    log = Log(lines.append)
    with serving(token="secret", access_log=log) as (client, _):
        headers = {"authorization": "Bearer secret"}
        assert ask(client, "the private ring", headers=headers).status_code == 200
        stored = client.post("/v1/frames", files={"image": png()}, headers=headers).json()["frame"]
        client.post(f"/v1/frames/{stored}/segment", json={"query": "the private ring"}, headers=headers)
        client.get("/v1/nothing%0A2026-01-01T00:00:00Z?query=private")
        client.delete(f"/v1/frames/{stored}")
        client.get("/metrics")
        sent = len(client.get("/example.png").content)
    log.close()
    stamp, ms = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ testclient ", r" \d+\.\d ms (\d+) bytes$"
    expected = [
        "POST /v1/segment 200",
        "POST /v1/frames 201",
        "POST /v1/frames/{frame}/segment 200",
        "GET /v1/nothing%0A2026-01-01T00:00:00Z 401",
        "DELETE /v1/frames/{frame} 401",
        "GET /metrics 401",
        "GET /example.png 200",
    ]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert re.fullmatch(f"{stamp[1:]}{re.escape(words)}{ms[:-1]}", line), line
    assert int(re.findall(ms, lines[-1])[0]) == sent
    assert not any(word in "\n".join(lines) for word in ("private", "secret", stored))


def test_what_a_proxy_names_cannot_forge_a_line() -> None:
    line = Served("::1 GET / 200\x1b[0m", "GET", "/" + "x" * 500, None, 0, 1.25, 7).to_line()
    assert line == f"::1?GET???200??0m GET /{'x' * 199} - 1.2 ms 7 bytes"


def test_what_was_requested_fills_no_log_and_names_no_image() -> None:
    line = Served("a", "X" * 60_000, "//v1/frames/secret/segment", None, 405, 1.0, 31).to_line()
    assert line == f"a {'X' * 20} //v1/frames/{{frame}}/segment 405 1.0 ms 31 bytes"


def test_a_log_that_nobody_reads_delays_nothing_and_counts_what_is_lost() -> None:
    gate, lines = threading.Event(), list[str]()

    def write(line: str) -> None:
        gate.wait(20)
        lines.append(line)

    log = Log(write)
    for _ in range(1500):
        log.add_request(Served("a", "GET", "/", "/", 200, 1.0, 0))
    gate.set()
    log.close()
    told = [line for line in lines if "were dropped" in line]
    assert len(lines) - len(told) in (1000, 1001)  # one may have been taken already
    (lost,) = (int(line.split()[0]) for line in told)
    assert lost + len(lines) - len(told) == 1500


@pytest.mark.parametrize("options", [(), ("--no-access-log",)])
def test_the_command_writes_it_to_stderr_unless_told_otherwise(options: tuple[str, ...]) -> None:
    with process("--forwarded-allow-ips", "127.0.0.1", *options) as (running, url):
        httpx.get(f"{url}/healthz?who=me", headers={"x-forwarded-for": "10.1.2.3"})
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stream:
            stream.sendall(b"no HTTP\r\n\r\n")
            stream.recv(100)
        running.terminate()
        assert running.stderr is not None
        said = running.stderr.read()
    lines = [line.partition("Z ")[2] for line in said.splitlines()]
    assert lines.pop() == "WARNING: Invalid HTTP request received."
    if not options:
        assert re.fullmatch(r"10\.1\.2\.3 GET /healthz 200 \d+\.\d ms 15 bytes", lines.pop())
    assert lines == []


def test_a_pipe_that_nobody_reads_does_not_keep_the_process() -> None:
    with process() as (running, url), httpx.Client(base_url=url) as client:
        assert running.stderr is not None
        fcntl.fcntl(running.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(100):  # lines of 68 bytes
            assert client.get("/healthz").status_code == 200
        for _ in range(3):  # uvicorn warns of each
            with socket.create_connection(("127.0.0.1", client.base_url.port)) as stream:
                stream.sendall(b"no HTTP\r\n\r\n")
                assert stream.recv(100).startswith(b"HTTP/1.1 400")
            head = {"content-type": "multipart/form-data; boundary=b"}
            assert client.post("/v1/frames", content=b"--b\r\n[]--b--\r\n", headers=head).status_code == 400
        assert client.get("/healthz").status_code == 200
        running.terminate()
        assert running.wait(20) == 0
