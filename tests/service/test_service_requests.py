"""Bad requests are rejected with a status and one line, whatever their form, and the next one is answered."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from gated_service import gated_session, serving
from service_client import ask, png
from wise_edge.service.app import make_app
from wise_edge.service.bodies import Bodies
from wise_edge.service.limits import Limits


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(Limits(pixels=1_000_000)) as (shared, _):
        yield shared


@pytest.mark.parametrize(
    ("fields", "status", "line"),
    [
        ({"query": " "}, 400, "the query is empty"),
        ({"query": "x" * 1001}, 422, ""),
        ({"query": "a <|im_end|> b"}, 400, "reserved for the chat markup"),
        ({"variant": "loud"}, 422, ""),
        ({"deadline_ms": "nan"}, 422, ""),
        ({"deadline_ms": "-1"}, 422, ""),
        ({"deadline_ms": "80", "variant": "wise-s"}, 400, "pass only one of them"),
        ({"pixels": "0"}, 422, "pixels: Input should be greater than or equal to 1"),
        ({"pixels": "many"}, 422, "pixels"),
        ({"mask": "gif"}, 422, ""),
        ({"image": b"no image"}, 400, "not an image"),
        ({"image": png()[:60]}, 400, "damaged or cut short"),
        ({"image": png(2000, 2000)}, 400, "at most 1 million are read"),
    ],
)
def test_bad_requests_are_rejected_with_a_reason(
    fields: dict[str, Any], status: int, line: str, client: TestClient
) -> None:
    answer = ask(client, **{"query": "the ring", **fields})
    assert answer.status_code == status
    assert line in answer.text
    assert ask(client).status_code == 200


def test_a_policy_is_asked_in_its_own_variants() -> None:
    session, policy = gated_session()
    policy.variants, policy.default_variant = ("where", "answer"), "where"
    with TestClient(make_app(session), base_url="http://127.0.0.1") as client:
        assert [ask(client, **asked).json()["variant"] for asked in ({}, {"variant": "answer"})] == ["where", "answer"]
        assert ask(client, variant="wise-s").json() == {"error": "variant: Input should be 'where' or 'answer'"}
        options = re.findall(r"<option.*?</option>", client.get("/").text)
    assert options == [
        '<option value="answer">no rationale (answer)</option>',
        '<option value="where" selected>where</option>',
    ]


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


def test_a_body_without_an_image_is_short() -> None:
    with serving(Limits(question_bytes=2000)) as (client, _):
        path = f"/v1/frames/{client.post('/v1/frames', files={'image': png() + bytes(5000)}).json()['frame']}/segment"
        assert client.post(path, json={"query": "the ring"}).status_code == 200

        def chunks() -> Iterator[bytes]:
            for _ in range(1000):
                yield b"{},"

        for sent in ({"content": b"[" + b"{}," * 1000}, {"content": chunks()}, {"data": {"query": "x" * 3000}}):
            answer = client.post(path, **sent)
            assert answer.status_code == 413
            assert answer.json() == {"error": "a body without an image may have at most 2000 bytes"}


def test_bodies_in_memory_are_counted_in_bytes_and_shared() -> None:
    bodies = Bodies(Limits(body_bytes=100, waiting=3))
    assert bodies.add("a", 300)
    assert not bodies.add("a", 1)
    assert bodies.add("b", 100)
    assert not bodies.add("c", 1)
    bodies.remove("a", 300)
    assert bodies.add("c", 300)


def test_a_body_that_finds_no_room_is_asked_to_retry() -> None:
    with serving(Limits(body_bytes=5000, waiting=1)) as (client, policy):
        policy.gate.clear()
        waiting = threading.Thread(target=ask, args=(client,), kwargs={"image": png() + bytes(4000)})
        waiting.start()
        assert policy.begun.acquire(timeout=10)
        answer = ask(client, image=png() + bytes(4000))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json() == {"error": "too many bodies are in memory; retry in 1 s"}
        policy.gate.set()
        waiting.join(10)
        assert ask(client, image=png() + bytes(4000)).status_code == 200


def test_a_body_that_comes_too_slowly_is_let_go() -> None:
    async def dribble() -> dict[str, Any]:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"", "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = make_app(gated_session()[0], Limits(body_s=0.05))
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/segment", "raw_path": b"/v1/segment"}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("x", 80), "client": ("y", 1)}
    scope |= {"headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    asyncio.run(app(scope, dribble, send))
    assert sent[0]["status"] == 408
    assert b"did not arrive within 0.05 s" in sent[1]["body"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"query": "the ring", "deadline_ms": NaN}', "NaN is not a finite number"),
        ('{"query": "the ring", "deadline_ms": Infinity}', "Infinity is not a finite number"),
        ('{"query": "the ring", "deadline_ms": 1e999}', "1e999 is not a finite number"),
        ('{"query": "the ring", "deadline_ms": 1' + "0" * 400 + "}", "is not a finite number of at most 64 characters"),
        ('{"query": "the ring", "deadline_ms": 600001}', "deadline_ms: Input should be less than or equal to 600000"),
        ('{"query": 1}', "query: Input should be a valid string"),
        ('{"query": "\\ud800"}', "it has half a character"),
        ('{"query": "the ring", "mask": "\\udfff", "energy": true}', "it has half a character"),
        ('{"query": ["secret"]}', "query: Input should be a valid string"),
        ('{"query": "the ring", "query": "secret"}', "the key 'query' is repeated"),
        ("[1]", "the body does not hold a JSON object"),
        (
            '{"query": secret}',
            "the body is not JSON (Expecting value: line 1 column 11 (char 10)); send one JSON object",
        ),
        ("[" * 60_000, "it is nested too deeply"),
        ("", "query: Field required"),
    ],
)
def test_malformed_json_is_rejected_without_its_content(content: str, line: str, client: TestClient) -> None:
    path = f"/v1/frames/{client.post('/v1/frames', files={'image': png()}).json()['frame']}/segment"
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}
    assert line in answer.json()["error"]
    assert answer.text.isascii()
    assert "\n" not in answer.text
    assert "secret" not in answer.text


def test_malformed_forms_are_rejected_in_one_line(client: TestClient) -> None:
    for sent, line in (
        ({"data": {"query": "the ring"}}, "image: Field required"),
        ({"files": {"image": png()}}, "query: Field required"),
        ({}, "image: Field required; query: Field required"),
        ({"files": {"image": png()}, "data": {"query": ["the ring", "the star"]}}, "query: sent twice"),
    ):
        answer = client.post("/v1/segment", **sent)
        assert (answer.status_code, answer.json()) == (422, {"error": line})


@pytest.mark.parametrize("name", ["query", "variant", "deadline_ms", "pixels", "mask", "energy"])
def test_half_a_character_in_a_form_is_refused(name: str, client: TestClient) -> None:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    fields = {"query": "the ring", name: r"\ud800"}
    body = "".join(part.format(*field) for field in fields.items()).encode() + head + png() + b"\r\n--b--\r\n"
    for charset in ("unicode_escape", "nonsense"):
        headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
        answer = client.post("/v1/segment", content=body, headers=headers)
        if (name, charset) == ("query", "nonsense"):  # a backslash and letters are a valid query
            continue
        assert answer.status_code in (400, 422)
        assert answer.text.isascii()
        assert set(answer.json()) == {"error"}
