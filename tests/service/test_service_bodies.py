"""A body is a form or JSON, on every call that takes one, and its unknown fields are named."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from gated_service import serving
from service_client import ask, pixels_of, png
from wise_edge.service.limits import Limits

IMAGE = base64.b64encode(png()).decode()
AS_FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as (shared, _):
        yield shared


def store(client: TestClient) -> str:
    return f"/v1/frames/{client.post('/v1/frames', files={'image': png()}).json()['frame']}/segment"


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"query": "the ring", "variant": "answer", "energy": False}},
        {"data": {"query": "the ring", "variant": "answer", "energy": "false"}},
        {"files": {"query": (None, "the ring"), "variant": (None, "answer"), "deadline_ms": (None, "")}},
        {"content": b'{"query": "the ring", "variant": "answer"}', "headers": AS_FORM},  # as `curl -d` sends it
        {"content": b'{"query": "the ring", "variant": "answer"}', "headers": {"content-type": ""}},
        {"content": b'{"query": "the ring", "variant": "answer"}', "headers": {"content-type": "Application/JSON; x"}},
    ],
)
def test_a_stored_image_is_queried_with_a_form_or_json(sent: dict[str, Any], client: TestClient) -> None:
    answer = client.post(store(client), **sent)
    assert (answer.status_code, answer.json()["query"], answer.json()["variant"]) == (200, "the ring", "answer")


@pytest.mark.parametrize("image", [IMAGE, f"data:image/png;base64,{IMAGE}", f"{IMAGE[:76]}\n{IMAGE[76:]}\n"])
def test_an_image_comes_in_base64(image: str, client: TestClient) -> None:
    answer = client.post("/v1/segment", json={"image": image, "query": "the ring", "mask": "rle"})
    assert pixels_of(answer.json()["mask"]).sum() == 150
    assert client.post("/v1/segment", files={"image": (None, image)}, data={"query": "the ring"}).status_code == 200
    stored = client.post("/v1/frames", json={"image": image})
    assert (stored.status_code, stored.json()["width"]) == (201, 30)


@pytest.mark.parametrize(
    ("sent", "status", "line"),
    [
        (
            {"json": {"image": "no image!", "query": "x"}},
            400,
            "the image is not base64; send a file in a form, or base",
        ),
        ({"json": {"image": 7, "query": "x"}}, 422, "image: Input should be a valid bytes"),
        (
            {"content": b"x", "headers": {"content-type": "text/plain"}},
            415,
            "form-data) or application/json, not text/",
        ),
        (
            {"content": b"x", "headers": {"content-type": "image/png"}},
            415,
            "form-data) or application/json, not image/",
        ),
        ({"content": b"x", "headers": {"content-type": ""}}, 415, "not a body without a Content-Type"),
        ({"files": [("image", png()), ("image", png())], "data": {"query": "x"}}, 400, "Too many files"),
    ],
)
def test_other_bodies_are_refused(sent: dict[str, Any], status: int, line: str, client: TestClient) -> None:
    answer = client.post("/v1/segment", **sent)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert line in answer.json()["error"]


def test_an_unknown_field_is_named_with_what_was_meant(client: TestClient) -> None:
    known = "image, query, variant, deadline_ms, pixels, mask, energy, output"
    lines = {
        "querry": "querry: unknown field; did you mean 'query'?",
        "varient": "varient: unknown field; did you mean 'variant'?",
        "prompt": f"prompt: unknown field; there are {known}",
    }
    for name, line in lines.items():
        for answer in (
            client.post("/v1/segment", files={"image": png()}, data={"query": "the ring", name: "x"}),
            client.post("/v1/segment", json={"image": IMAGE, "query": "the ring", name: "x"}),
        ):
            assert (answer.status_code, answer.json()) == (422, {"error": line})
    many = client.post("/v1/segment", json={f"field{number}": 1 for number in range(50)}).json()["error"]
    assert many.count("; ") < 12
    assert client.post("/v1/frames", files={"image": png()}, data={"query": "x"}).json() == {
        "error": "query: unknown field; there are image"
    }
    assert client.post(store(client), json={"image": IMAGE, "query": "x"}).json()["error"].startswith("image: unknown")


def test_fields_in_the_address_are_refused(client: TestClient) -> None:
    for path in ("/v1/segment", "/v1/frames", store(client)):
        answer = client.post(f"{path}?mask=png&variant=answer", files={"image": png()}, data={"query": "the ring"})
        assert answer.status_code == 422
        assert answer.json() == {"error": "mask: send it in the body, not in the address"}


def test_json_with_an_image_may_be_long_but_not_nested() -> None:
    with serving(Limits(body_bytes=200_000, question_bytes=1000)) as (client, _):
        image = base64.b64encode(png() + bytes(100_000)).decode()
        assert client.post("/v1/segment", json={"image": image, "query": "the ring"}).status_code == 200
        answer = client.post(store(client), json={"query": "the ring", "image": image})
        assert answer.json() == {"error": "a body without an image may have at most 1000 bytes"}
        told = {"error": "a body without an image may have at most 1000 bytes; one with an image says Content-Type: "}
        told["error"] += "application/json"
        body = json.dumps({"image": image, "query": "the ring"})
        for kind in ("application/x-www-form-urlencoded", "text/plain"):  # the first is what `curl -d` says
            assert client.post("/v1/segment", content=body, headers={"content-type": kind}).json() == told
        for values in ("[" + "{}," * 3000 + "{}]", "[" * 3000 + "]" * 3000):
            body = json.dumps({"image": image, "query": "the ring"})[:-1] + f', "more": {values}}}'
            answer = client.post("/v1/segment", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()) == (422, {"error": "the JSON has too many values"})
        assert ask(client, "the ring").status_code == 200
