"""The service: right answers over HTTP, and limits that hold."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import fake_session
from fake_session import FakeImage, FakeMask, FakePolicy
from service_client import ask, pixels_of, png, wait_until
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.session import Session
from wise_edge.service import answering
from wise_edge.service.answering import SegmentRequest, Service
from wise_edge.service.app import make_app
from wise_edge.service.guard import OWN_HOSTS
from wise_edge.service.image_store import ImageStore
from wise_edge.service.limits import Limits
from wise_edge.service.query_queue import BusyError, QueryQueue


class Gated(FakePolicy):
    """Writes word by word, once it is let; the warming-up goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        if request.query != "the object":
            self.begun.release()
            while not self.gate.wait(0.005):
                request.check_cancelled()
        if request.query == "fail":
            raise WiseEdgeError("the engine is lost")
        if request.query == "bug":
            raise RuntimeError("index 7 is out of bounds")
        output = super().generate(encoded, request)
        if request.on_text is not None:
            for length in range(10, len(output.text), 25):
                request.on_text(output.text[:length])
        return output


@contextmanager
def serving(limits: Limits | None = None, token: str | None = None) -> Iterator[tuple[TestClient, Gated]]:
    policy = Gated()
    policy.gate.set()
    session = Session(policy, FakeMask(), {}, frames=4)
    with TestClient(make_app(session, limits, token), raise_server_exceptions=False) as client:
        yield client, policy


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
    with serving(Limits(images=2)) as (client, policy):
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
        assert (gone.status_code, gone.json()["error"]) == (404, "this image is no longer stored; upload it again")


def test_the_last_pictures_are_kept() -> None:
    store = ImageStore(2)
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
        ({"image": b"no image"}, 400, "not an image"),
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
        assert (answer.status_code, answer.json()["error"]) == (413, "a body may have at most 50000 bytes")
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
    assert b"did not arrive within 0.5 s" in sent[1]["body"]


def test_a_token_is_asked_of_all_that_tells_of_pictures() -> None:
    with serving(token="secret") as (client, _):
        assert ask(client).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert ask(client, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert ask(client, headers={"authorization": "Bearer secret"}).status_code == 200
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200


def test_a_page_that_points_its_own_name_here_is_refused() -> None:
    session = Session(Gated(), FakeMask(), {})
    app = make_app(session, own_hosts=OWN_HOSTS)
    for host, status in (("127.0.0.1:8020", 200), ("localhost", 200), ("[::1]:8020", 200), ("evil.example:8020", 403)):
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get("/healthz", headers={"host": host}).status_code == status
        app = make_app(session, own_hosts=OWN_HOSTS)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8020", 200),
        ("http://LOCALHOST:8020", 200),
        ("http://[::1]:8020", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1.evil.example:8020", 403),
        ("http://evil.example/://127.0.0.1", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_site_is_refused(origin: str, status: int) -> None:
    policy = Gated()
    policy.gate.set()
    app = make_app(Session(policy, FakeMask(), {}), own_hosts=OWN_HOSTS)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = ask(client, headers={"origin": origin})
        assert answer.status_code == status
        if status == 403:
            assert answer.json() == {"error": "this service answers only its own page, not pages of other sites"}


def test_with_a_token_a_page_may_be_anywhere() -> None:
    with serving(token="secret") as (client, _):
        headers = {"origin": "http://robot.example", "authorization": "Bearer secret"}
        assert ask(client, headers=headers).status_code == 200


def test_more_queries_than_may_wait_are_told_when_to_come_again() -> None:
    with serving(Limits(waiting=2)) as (client, policy):
        policy.gate.clear()
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(6)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: sum(answer.status_code == 429 for answer in answers) == 3)
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
        queue = QueryQueue(Limits(waiting=8))
        first = asyncio.create_task(queue.run(lambda cancel: gate.wait(10), "greedy"))
        await asyncio.sleep(0)
        greedy = [asyncio.create_task(queue.run(noting(f"greedy {n}"), "greedy")) for n in range(6)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await queue.run(noting("one too many"), "greedy")
        modest = [asyncio.create_task(queue.run(noting(f"modest {n}"), "modest")) for n in range(2)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *greedy, *modest)
        queue.close()

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


def test_a_bug_is_told_in_json_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as (client, _):
        answer = ask(client, "bug")
        assert answer.status_code == 500
        assert answer.json() == {"error": "internal error; see the service's log"}
        assert "index 7 is out of bounds" in caplog.text  # the traceback's last line
        assert 'wise_edge_requests_total{path="/v1/segment",status="500"} 1.0' in client.get("/metrics").text
        assert ask(client).status_code == 200


@pytest.mark.parametrize("place", ["engine", "describe"])
def test_a_bug_ends_a_stream_and_is_logged(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*about: Any) -> dict[str, Any]:
        raise RuntimeError("index 7 is out of bounds")

    if place == "describe":
        monkeypatch.setattr(answering, "describe", fail)

    async def stream() -> list[str]:
        policy = Gated()
        policy.gate.set()
        service = Service(Session(policy, FakeMask(), {}), Limits(), QueryMeter(None))
        request = SegmentRequest("bug" if place == "engine" else "the ring")
        told = [event async for event in service.stream(np.zeros((20, 30, 3), np.uint8), request, "")]
        service.close()
        return told

    told = asyncio.run(asyncio.wait_for(stream(), 10))
    error = {"error": "internal error; see the service's log", "status": 500}
    assert told[-1] == f"event: error\ndata: {json.dumps(error)}\n\n"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "index 7 is out of bounds" in caplog.text


def test_a_query_that_nobody_waits_for_leaves_its_place_to_others() -> None:
    gate = threading.Event()

    async def leave() -> None:
        queue = QueryQueue(Limits(waiting=1))
        first = asyncio.create_task(queue.run(lambda cancel: gate.wait(30)))
        second = asyncio.create_task(queue.run(lambda cancel: None))
        await asyncio.sleep(0.1)
        assert queue.waiting == 2
        with pytest.raises(BusyError):
            queue.check_room()
        second.cancel()
        await asyncio.sleep(0.1)
        assert queue.waiting == 1
        third = asyncio.create_task(queue.run(lambda cancel: "third"))
        await asyncio.sleep(0)
        gate.set()
        assert (await first, await third) == (True, "third")
        queue.close()

    asyncio.run(leave())


def test_a_client_that_leaves_has_its_query_cancelled() -> None:
    async def leave() -> None:
        gone, ended = asyncio.Event(), threading.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def answer() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        waiting = asyncio.create_task(answering.while_connected(receive, answer()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        gone.set()
        with pytest.raises(QueryCancelledError, match="the client disconnected"):
            await asyncio.wait_for(waiting, 10)
        await asyncio.sleep(0)
        assert ended.is_set()

    asyncio.run(leave())


def test_a_picture_is_not_decoded_where_its_query_has_no_room() -> None:
    with serving(Limits(waiting=1)) as (client, policy):
        policy.gate.clear()
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(2)]
        threads[0].start()
        assert policy.begun.acquire(timeout=20)
        threads[1].start()
        assert wait_until(lambda: "wise_edge_waiting 2.0" in client.get("/metrics").text)
        refused = ask(client, image=b"no image")
        kept = client.post("/v1/frames", files={"image": b"no image"})
        policy.gate.set()
        for thread in threads:
            thread.join(timeout=10)
        assert (refused.status_code, kept.status_code) == (429, 429)
        assert ask(client, image=b"no image").status_code == 400


def test_few_pictures_are_decoded_at_once_and_few_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, lock = threading.Event(), threading.Lock()
    inside = most = 0

    def load(data: bytes, pixels: int) -> np.ndarray:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        gate.wait(30)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return np.zeros((20, 30, 3), np.uint8)

    monkeypatch.setattr(answering, "load_image", load)
    with serving(Limits(waiting=3)) as (client, _):
        found: list[int] = []

        def keep() -> None:
            found.append(client.post("/v1/frames", files={"image": b"any"}).status_code)

        threads = [threading.Thread(target=keep) for _ in range(7)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: len(found) == 3)
        gate.set()
        for thread in threads:
            thread.join(timeout=30)
    assert sorted(found) == [201] * 4 + [429] * 3
    assert most == 2


def test_a_mask_is_written_beside_what_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, asked, describe = threading.Event(), threading.Event(), answering.describe

    def write(*about: Any) -> dict[str, Any]:
        begun.set()
        assert asked.wait(10), "the service stood still while a mask was written"
        return describe(*about)

    monkeypatch.setattr(answering, "describe", write)
    with serving() as (client, _):
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(ask(client, mask="png")))
        thread.start()
        assert begun.wait(10)
        assert client.get("/healthz").status_code == 200
        asked.set()
        thread.join(timeout=20)
        assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"query": "the ring", "deadline_ms": NaN}', "deadline_ms: Input should be "),
        ('{"query": "the ring", "deadline_ms": Infinity}', "deadline_ms: Input should be less than or equal to 600000"),
        ('{"query": "the ring", "deadline_ms": 1e999}', "deadline_ms: Input should be less than or equal to 600000"),
        ('{"query": "the ring", "deadline_ms": 1' + "0" * 400 + "}", "deadline_ms: "),
        ('{"query": NaN}', "query: Input should be a valid string"),
        ('{"query": "\\ud800"}', "query: "),
        ('{"query": "the ring", "variant": "\\ud800"}', "variant: "),
        ('{"query": "the ring", "mask": "\\udfff", "energy": NaN}', "energy: "),
        ('{"query": ["secret"]}', "query: Input should be a valid string"),
        ('{"\\ud800": 1}', "query: Field required"),
        ("[NaN]", "the body: "),
        ('"\\ud800"', "the body: "),
        ('{"query": secret}', "the body is not valid JSON: Expecting value"),
        ("", "the body: Field required"),
    ],
)
def test_malformed_json_is_told_in_one_line_without_its_content(content: str, line: str) -> None:
    with serving() as (client, _):
        path = f"/v1/frames/{client.post('/v1/frames', files={'image': png()}).json()['frame']}/segment"
        answer = client.post(path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert set(answer.json()) == {"error"}
        assert line in answer.json()["error"]
        assert answer.text.isascii()
        assert "\n" not in answer.text
        assert "secret" not in answer.text


def test_malformed_forms_are_told_in_one_line() -> None:
    with serving() as (client, _):
        for sent, line in (
            ({"data": {"query": "the ring"}}, "image: Field required"),
            ({"files": {"image": png()}}, "query: Field required"),
            (
                {"content": b"", "headers": {"content-type": "text/plain"}},
                "image: Field required; query: Field required",
            ),
        ):
            answer = client.post("/v1/segment", **sent)
            assert (answer.status_code, answer.json()) == (422, {"error": line})


@pytest.mark.parametrize("name", ["query", "variant", "deadline_ms", "mask", "energy"])
def test_half_a_character_in_a_form_is_refused(name: str) -> None:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    fields = {"query": "the ring", name: r"\ud800"}
    body = "".join(part.format(*field) for field in fields.items()).encode() + head + png() + b"\r\n--b--\r\n"
    with serving() as (client, _):
        for charset in ("unicode_escape", "nonsense"):
            headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
            answer = client.post("/v1/segment", content=body, headers=headers)
            if (name, charset) == ("query", "nonsense"):  # a query of a backslash and letters is one
                continue
            assert answer.status_code in (400, 422)
            assert answer.text.isascii()
            assert set(answer.json()) == {"error"}


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
        answers = [about["responses"] for path in schema["paths"].values() for about in path.values()]
        faults = [each["422"]["content"]["application/json"]["schema"] for each in answers if "422" in each]
        assert faults == [{"$ref": "#/components/schemas/Failure"}] * 4
        kinds = {"/metrics": "get", "/v1/segment": "post"}
        told = [set(schema["paths"][path][method]["responses"]["200"]["content"]) for path, method in kinds.items()]
        assert told == [{"text/plain"}, {"application/json", "text/event-stream"}]
        page = client.get("/docs").text
        for words in ("POST /v1/segment", "What to find.", "verbose, wise, wise-infer", "Retry-After"):
            assert words in page
        assert "http" not in page


def test_limits_let_something_through() -> None:
    with pytest.raises(UsageError, match="limit waiting must be above 0, not 0"):
        Limits(waiting=0)


def test_another_address_needs_a_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    fake_session.install(monkeypatch)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 is reachable by others: set WISE_EDGE_TOKEN" in capsys.readouterr().err
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
        policy.write = lambda *about: time.sleep(0.4) or fake_session.completion()  # type: ignore[func-returns-value]
        told = ask(client, energy="true").json()
        assert told["energy_source"] == "rails: VDD_IN"
        assert told["energy_j"]["total"] >= 1.0
        assert told["energy_reason"] is None


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (DeviceError("the engine needs 9 GB, 8 are there"), 4, "error: the engine needs 9 GB, 8 are there"),
        (WiseEdgeError("the engine is lost"), 1, "error: the engine is lost"),
        (None, 4, "error: the first query was not answered within 0.2 s; raise --time-limit"),
        (RuntimeError("index 7"), 1, "internal error: RuntimeError: index 7"),
    ],
)
def test_a_first_query_that_fails_is_one_line_and_an_exit_code(
    failure: Exception | None, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def write(*about: Any) -> str:
        if failure is not None:
            raise failure
        time.sleep(1)
        return fake_session.completion()

    fake_session.install(monkeypatch, write)
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    assert main(["serve", "--port", "0", "--time-limit", "0.2" if failure is None else "60"]) == code
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1, told
    assert told[0].startswith(line)
