"""The service: right answers over HTTP, limits that hold, and an end that loses no query."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import fake_session
import httpx
import numpy as np
import pytest
from fake_session import FakeFrame, FakeMask, FakePolicy
from PIL import Image
from pycocotools import mask as coco
from starlette.testclient import TestClient

from wise_edge.cli.main import main
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.power import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.base import Decoding, PolicyOutput
from wise_edge.runtimes.session import Session
from wise_edge.service.app import make_app
from wise_edge.service.device import BusyError, Device
from wise_edge.service.frames import FrameStore
from wise_edge.service.limits import Limits


def png(width: int = 30, height: int = 20, value: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(runs: dict[str, Any]) -> np.ndarray:
    """Return a mask as COCO's own tools read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools and numpy 2
        found: np.ndarray = coco.decode(runs) > 0
    return found


class Gated(FakePolicy):
    """Writes word by word, once it is let; the warming-up goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)

    def generate(self, frame: FakeFrame, query: str, variant: str, decoding: Decoding) -> PolicyOutput:
        if query != "the object":
            self.begun.release()
            while not self.gate.wait(0.005):
                decoding.check_cancelled()
        if query == "fail":
            raise WiseEdgeError("the engine is lost")
        output = super().generate(frame, query, variant, decoding)
        if decoding.on_text is not None:
            for length in range(10, len(output.text), 25):
                decoding.on_text(output.text[:length])
        return output


@contextmanager
def serving(limits: Limits | None = None, token: str | None = None) -> Iterator[tuple[TestClient, Gated]]:
    policy = Gated()
    policy.gate.set()
    session = Session(policy, FakeMask(), {}, frames=4)
    with TestClient(make_app(session, limits, token), raise_server_exceptions=False) as client:
        yield client, policy


def ask(client: TestClient, query: str = "the ring", image: bytes | None = None, **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    return client.post(
        "/v1/segment", files={"image": ("a.png", image or png())}, data={"query": query, **more}, headers=headers
    )


def test_a_query_is_answered_with_the_sessions_result() -> None:
    with serving() as (client, _):
        answer = ask(client)
        assert answer.status_code == 200
        data = answer.json()
        assert (data["query"], data["variant"], data["box"]) == ("the ring", "wise-s", [8, 5, 23, 15])
        assert data["rationale"] == fake_session.RATIONALE
        assert pixels_of(data["mask"]).sum() == 150
        assert ask(client, variant="verbose").json()["variant"] == "verbose"

        picture = Image.open(io.BytesIO(base64.b64decode(ask(client, mask="png").json()["mask"])))
        assert picture.size == (30, 20)
        assert (np.asarray(picture) > 0).sum() == 150
        assert ask(client, mask="none").json()["mask"] is None
        assert ask(client, deadline_ms=500).json()["deadline"]["deadline_ms"] == 500


def test_a_picture_is_kept_for_several_queries() -> None:
    with serving(Limits(frames=2)) as (client, policy):
        kept = client.post("/v1/frames", files={"image": png()})
        assert kept.status_code == 201
        assert (kept.json()["width"], kept.json()["height"]) == (30, 20)
        path = f"/v1/frames/{kept.json()['frame']}"
        encoded = policy.encoded
        first, second = (client.post(f"{path}/segment", json={"query": f"the ring {n}"}).json() for n in range(2))
        assert (first["frame_reused"], second["frame_reused"]) == (False, True)
        assert policy.encoded == encoded + 1

        assert client.delete(path).status_code == 204
        assert client.delete(path).status_code == 404
        gone = client.post(f"{path}/segment", json={"query": "the ring"})
        assert (gone.status_code, gone.json()["error"]) == (404, "this picture is not kept any more; send it again")


def test_the_last_pictures_are_kept() -> None:
    store = FrameStore(2)
    pictures = [np.full((1, 1, 3), n, np.uint8) for n in range(3)]
    names = [store.add(picture) for picture in pictures[:2]]
    assert store.find(names[0]) is pictures[0]
    store.add(pictures[2])
    assert (len(store), store.find(names[1]), store.find(names[0])) == (2, None, pictures[0])


def events(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n", 1) for block in answer.text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_the_rationale_comes_as_it_is_written() -> None:
    with serving() as (client, _):
        told = events(ask(client, headers={"accept": "text/event-stream"}))
        assert [kind for kind, _ in told[:-1]] == ["text"] * (len(told) - 1)
        assert len(told) > 4
        texts = [data["text"] for _, data in told[:-1]]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert told[-1][0] == "result"
        assert told[-1][1]["text"].startswith(texts[-1])

        told = events(ask(client, "fail", headers={"accept": "text/event-stream"}))
        assert told[-1] == ("error", {"error": "the engine is lost", "status": 500})


@pytest.mark.parametrize(
    ("fields", "status", "line"),
    [
        ({"query": " "}, 400, "the query is empty"),
        ({"query": "x" * 1001}, 422, ""),
        ({"query": "a <|im_end|> b"}, 400, "reserved for the chat markup"),
        ({"variant": "loud"}, 422, ""),
        ({"deadline_ms": "nan"}, 422, ""),
        ({"deadline_ms": "-1"}, 422, ""),
        ({"deadline_ms": "80", "variant": "wise-s"}, 400, "leave the variant out"),
        ({"mask": "gif"}, 422, ""),
        ({"image": b"no picture"}, 400, "not a picture"),
        ({"image": png()[:60]}, 400, "damaged or cut short"),
        ({"image": png(2000, 2000)}, 400, "at most 1 million are read"),
    ],
)
def test_bad_requests_are_told_why(fields: dict[str, Any], status: int, line: str) -> None:
    with serving(Limits(pixels=1_000_000)) as (client, _):
        answer = ask(client, **{"query": "the ring", **fields})
        assert answer.status_code == status
        assert line in answer.text
        assert ask(client).status_code == 200


def test_a_body_too_large_is_refused_with_or_without_its_length() -> None:
    with serving(Limits(body_bytes=50_000)) as (client, _):
        assert ask(client, image=bytes(60_000)).status_code == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(100):
                yield bytes(1000)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = client.post("/v1/segment", content=chunks(), headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (413, "a body may have 50000 bytes")
        answer = client.post("/v1/frames/x/segment", content=chunks(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert ask(client).status_code == 200


def test_a_body_that_comes_too_slowly_is_let_go() -> None:
    async def dribble() -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return {"type": "http.request", "body": b"", "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = make_app(Session(Gated(), FakeMask(), {}), Limits(body_s=0.5))
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/segment", "raw_path": b"/v1/segment"}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("x", 80), "client": ("y", 1)}
    scope |= {"headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    asyncio.run(app(scope, dribble, send))
    assert sent[0]["status"] == 408
    assert b"did not come within 0.5 s" in sent[1]["body"]


def test_a_token_is_asked_of_all_that_tells_of_pictures() -> None:
    with serving(token="secret") as (client, _):
        assert ask(client).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert ask(client, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert ask(client, headers={"authorization": "Bearer secret"}).status_code == 200
        for path in ("/", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200


def test_a_page_that_points_its_own_name_here_is_refused() -> None:
    session = Session(Gated(), FakeMask(), {})
    app = make_app(session, own_host_only=True)
    for host, status in (("127.0.0.1:8020", 200), ("localhost", 200), ("[::1]:8020", 200), ("evil.example:8020", 403)):
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get("/healthz", headers={"host": host}).status_code == status
        app = make_app(session, own_host_only=True)


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do something in threads of its own and return what came of each."""
    found: list[Any] = [None] * count
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, work(n))) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found


def test_more_queries_than_may_wait_are_told_when_to_come_again() -> None:
    with serving(Limits(waiting=2)) as (client, policy):
        policy.gate.clear()
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(6)]
        for thread in threads:
            thread.start()
        while sum(answer.status_code == 429 for answer in answers) < 3:
            time.sleep(0.01)
        assert "wise_edge_waiting 3.0" in client.get("/metrics").text
        policy.gate.set()
        for thread in threads:
            thread.join(timeout=10)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429, 429, 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)


def test_clients_take_turns_and_none_fills_the_line() -> None:
    order: list[str] = []
    gate = threading.Event()

    def noting(name: str) -> Callable[[threading.Event], None]:
        return lambda cancel: order.append(name)

    async def ask_all() -> None:
        device = Device(Limits(waiting=8))
        first = asyncio.create_task(device.run(lambda cancel: gate.wait(10), "greedy"))
        await asyncio.sleep(0)
        greedy = [asyncio.create_task(device.run(noting(f"greedy {n}"), "greedy")) for n in range(6)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await device.run(noting("one too many"), "greedy")
        modest = [asyncio.create_task(device.run(noting(f"modest {n}"), "modest")) for n in range(2)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *greedy, *modest)
        device.close()

    asyncio.run(ask_all())
    assert order[:4] == ["greedy 0", "modest 0", "greedy 1", "modest 1"]
    assert order[4:] == [f"greedy {n}" for n in range(2, 6)]


def test_a_query_that_takes_too_long_is_cancelled_and_the_next_is_answered() -> None:
    with serving(Limits(query_s=0.2)) as (client, policy):
        policy.gate.clear()
        late = ask(client)
        assert (late.status_code, late.json()["error"]) == (503, "the query was not answered within 0.2 s")
        policy.gate.set()
        assert ask(client).status_code == 200


def test_an_engine_that_fails_is_told_and_the_next_query_is_answered() -> None:
    with serving() as (client, _):
        failed = ask(client, "fail")
        assert (failed.status_code, failed.json()["error"]) == (500, "the engine is lost")
        assert ask(client).status_code == 200


def test_metrics_count_requests_queries_and_phases() -> None:
    with serving() as (client, _):
        ask(client)
        client.get("/nothing")
        text = client.get("/metrics").text
        assert 'wise_edge_queries_total{valid="true",variant="wise-s"} 1.0' in text
        assert 'wise_edge_requests_total{path="/v1/segment",status="200"} 1.0' in text
        assert 'wise_edge_requests_total{path="unknown",status="404"} 1.0' in text
        assert 'wise_edge_phase_seconds_count{phase="decode"} 1.0' in text


def test_the_interface_is_described() -> None:
    with serving() as (client, _):
        schema = client.get("/openapi.json").json()
        assert set(schema["paths"]) >= {"/v1/segment", "/v1/frames", "/v1/frames/{frame}/segment", "/healthz"}
        assert set(schema["paths"]["/v1/segment"]["post"]["responses"]) >= {"200", "400", "413", "429", "503"}
        page = client.get("/docs").text
        for words in ("POST /v1/segment", "What to find, in words.", "verbose, wise, wise-infer", "Retry-After"):
            assert words in page
        assert "http" not in page


def test_limits_let_something_through() -> None:
    with pytest.raises(UsageError, match="limit waiting is above 0, this is 0"):
        Limits(waiting=0)


def test_another_address_needs_a_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    fake_session.install(monkeypatch)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 is open to others: set WISE_EDGE_TOKEN" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 4
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_the_energy_of_a_query_is_told_where_it_is_asked_for() -> None:
    rails = PowerSource("rails", "power", ("VDD_IN",), (0,), None, 0.002, lambda: (10.0,), (None,))
    policy = Gated()
    policy.gate.set()
    app = make_app(Session(policy, FakeMask(), {}), meter=QueryMeter(rails))
    with TestClient(app) as client:
        assert ask(client).json()["energy_reason"].startswith("no sensor was read")
        policy.write = lambda *about: time.sleep(0.1) or fake_session.completion()  # type: ignore[func-returns-value]
        told = ask(client, energy="true").json()
        assert told["energy_source"] == "rails: VDD_IN"
        assert told["energy_j"]["total"] >= 1.0
        assert told["energy_reason"] is None


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command on the embedded models and give its address."""
    command = [sys.executable, "-m", "wise_edge", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        try:
            assert line.startswith("serving http://127.0.0.1:"), line + running.stderr.read()
            yield running, line.split()[1]
        finally:
            running.kill()


def resident_kb(pid: int) -> int:
    """Return the memory of a process that is not shared with files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kB that unpacks to any size."""
    picture = io.BytesIO()
    Image.new("1", (width, 8)).save(picture, "PNG")
    data = bytearray(picture.getvalue())
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
        for _ in range(2):  # the largest picture is kept, and memory for decoding it too
            assert abuse() == [400, 413, 400, 200, 422]
        before_kb = resident_kb(running.pid)
        for _ in range(5):
            abuse()
        assert resident_kb(running.pid) < before_kb + 30_000
        assert post(png(224, 224)) == 200


@pytest.mark.slow
def test_eight_clients_get_right_answers() -> None:
    dataset, session = SceneDataset("test"), Session.from_bundle()
    examples = [dataset[place] for place in range(8)]
    expected = [session.segment(example.image, example.query) for example in examples]
    with process() as (_, url):

        def client(place: int) -> list[dict[str, Any]]:
            buffer = io.BytesIO()
            Image.fromarray(examples[place].image).save(buffer, "PNG")
            with httpx.Client(base_url=url, timeout=60) as http:
                fields = {"data": {"query": examples[place].query}, "files": {"image": buffer.getvalue()}}
                return [http.post("/v1/segment", **fields).json() for _ in range(5)]

        answers = together(8, client)
    for place, each in enumerate(answers):
        for answer in each:
            assert answer["box"] == list(expected[place].box or ())
            mask = expected[place].mask
            assert mask is not None
            assert np.array_equal(pixels_of(answer["mask"]), mask)


@pytest.mark.slow
def test_sigterm_lets_a_query_end_and_the_exit_code_is_0() -> None:
    with process() as (running, url):
        told: list[str] = []

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
                    told.append(line)
                    if len(told) == 1:
                        os.kill(running.pid, signal.SIGTERM)

        client()
        assert running.wait(timeout=30) == 0
        assert "event: result" in told


@pytest.mark.slow
def test_slow_and_half_open_clients_do_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with process() as (running, url):
        host, port = url.removeprefix("http://").split(":")
        sleepers = [socket.create_connection((host, int(port))) for _ in range(30)]
        for sleeper in sleepers[:10]:
            sleeper.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow")
        for sleeper in sleepers[10:20]:
            sleeper.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        began = time.perf_counter()
        answer = httpx.post(f"{url}/v1/segment", files={"image": png()}, data={"query": "the red ring"}, timeout=30)
        assert answer.status_code == 200
        assert time.perf_counter() - began < 10
        for sleeper in sleepers:
            sleeper.close()
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert running.poll() is None
