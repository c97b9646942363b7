"""The service's answers over HTTP: results, stored images, the streamed rationale, energy and metrics."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import fake_session
from gated_service import gated_session, serving
from service_client import ask, pixels_of, png
from wise_edge.bundle.evaluated import Evaluated, EvaluatedRun
from wise_edge.images import load_image
from wise_edge.outputs.saving import Kind, encode_result
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.scenes.recognition import OTHER_PICTURE
from wise_edge.service import answering
from wise_edge.service.app import make_app
from wise_edge.service.image_store import ImageStore
from wise_edge.service.limits import Limits
from wise_edge.service.schema import MEDIA_TYPES


def test_a_query_is_answered_with_the_sessions_result() -> None:
    with serving() as (client, _):
        answer = ask(client)
        assert answer.status_code == 200
        data = answer.json()
        assert (data["query"], data["variant"], data["box"]) == ("the ring", "wise-s", [8, 5, 23, 15])
        assert data["rationale"] == fake_session.RATIONALE
        assert pixels_of(data["mask"]).sum() == 150
        assert ask(client, variant="verbose").json()["variant"] == "verbose"

        image = Image.open(io.BytesIO(base64.b64decode(ask(client, mask="png").json()["mask"])))
        assert image.size == (30, 20)
        assert (np.asarray(image) > 0).sum() == 150
        assert ask(client, mask="none").json()["mask"] is None
        assert ask(client, deadline_ms=500).json()["deadline"]["deadline_ms"] == 500


def test_a_deadline_chooses_pixels_where_they_were_evaluated() -> None:
    runs = (
        EvaluatedRun("wise-s", None, 0.9, 0.9, 10.0, 45.0, "0" * 64),
        EvaluatedRun("answer", 7056, 0.5, 0.5, 0.0, 45.0, "0" * 64),
    )
    session, _ = gated_session()
    session.evaluated = Evaluated("scenes", "test", 9, "lisa", "forced", {"policy": "fake"}, "0" * 64, runs)
    with TestClient(make_app(session), base_url="http://127.0.0.1") as client:
        path = f"/v1/frames/{client.post('/v1/frames', files={'image': png()}).json()['frame']}/segment"
        chosen = []
        for deadline_ms in (600_000, 0.001, 600_000, 0.001):
            result = client.post(path, json={"query": "the ring", "deadline_ms": deadline_ms}).json()
            chosen.append((result["variant"], result["pixels"]))
            assert result["deadline"]["pixels"] == result["pixels"]
            assert len(result["deadline"]["considered"]) == 2
        assert chosen[0] == chosen[2] == ("wise-s", None)
        assert set(chosen) <= {(run.variant, run.pixels) for run in runs}
        assert client.post(path, json={"query": "the ring"}).json()["pixels"] is None
        asked = [client.post(path, json={"query": "the ring", "pixels": 3136}).json() for _ in range(2)]
        assert [(result["pixels"], result["frame_reused"]) for result in asked] == [(3136, False), (3136, True)]


def test_an_image_is_stored_for_several_queries() -> None:
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


def test_the_last_images_are_stored() -> None:
    store = ImageStore(2)
    images = [np.full((1, 1, 3), n, np.uint8) for n in range(3)]
    names = [store.add(image) for image in images[:2]]
    assert store.find(names[0]) is images[0]
    store.add(images[2])
    assert (len(store), store.find(names[1]), store.find(names[0])) == (2, None, images[0])


def test_stored_images_are_bounded_by_bytes() -> None:
    store = ImageStore(8)
    names = [store.add(np.broadcast_to(np.uint8(n), (4000, 4000, 3))) for n in range(4)]  # 48 MB each, if they were
    assert [store.find(name) is not None for name in names] == [False, False, True, True]
    largest = store.add(np.broadcast_to(np.uint8(0), (9000, 9000, 3)))
    assert (len(store), store.find(largest) is not None) == (1, True)


def events(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n", 1) for block in answer.text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_the_rationale_comes_as_it_is_written() -> None:
    with serving() as (client, _):
        received = events(ask(client, headers={"accept": "text/event-stream"}))
        assert [kind for kind, _ in received[:-1]] == ["text"] * (len(received) - 1)
        assert len(received) > 4
        assert all(set(data) == {"delta"} and data["delta"] for _, data in received[:-1])
        text = "".join(data["delta"] for _, data in received[:-1])
        assert len(text) > 80
        assert received[-1][0] == "result"
        assert received[-1][1]["text"].startswith(text)

        received = events(ask(client, "fail", headers={"accept": "text/event-stream"}))
        assert received[-1] == ("error", {"error": "the engine is lost", "status": 500})


def test_half_a_character_waits_for_its_other_half() -> None:
    with serving() as (client, policy):

        def generate(encoded: fake_session.FakeImage, request: Request) -> PolicyOutput:
            for text in ("", "<think>a", "<think>a\ufffd", "<think>a\ufffd\ufffd", "<think>aあ", "<think>aあb"):
                if request.on_text is not None:
                    request.on_text(text)
            return fake_session.FakePolicy.generate(policy, encoded, request)

        policy.generate = generate  # type: ignore[method-assign]
        received = events(ask(client, headers={"accept": "text/event-stream"}))
    assert [data["delta"] for kind, data in received if kind == "text"] == ["<think>a", "あ", "b"]


def test_other_requests_are_answered_while_a_mask_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, asked, describe = threading.Event(), threading.Event(), answering.describe

    def write(*about: Any) -> dict[str, Any]:
        begun.set()
        assert asked.wait(10), "the service answered nothing else while it encoded a mask"
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


def test_the_energy_of_a_query_is_measured_on_request() -> None:
    rails = PowerSource("rails", "power", ("VDD_IN",), (0,), None, 0.002, lambda: (10.0,), (None,))
    with serving(meter=QueryMeter(rails)) as (client, policy):
        assert ask(client).json()["energy_reason"].startswith("no sensor was read")
        policy.write = lambda *about: time.sleep(0.4) or fake_session.completion()  # type: ignore[func-returns-value]
        received = ask(client, energy="true").json()
        assert received["energy_source"] == "rails: VDD_IN"
        assert received["energy_j"]["total"] >= 1.0
        assert received["energy_reason"] is None


def test_metrics_count_requests_queries_and_phases() -> None:
    with serving() as (client, _):
        ask(client)
        client.get("/nothing")
        text = client.get("/metrics").text
        assert 'wise_edge_queries_total{status="found",variant="wise-s"} 1.0' in text
        assert 'wise_edge_requests_total{path="/v1/segment",status="200"} 1.0' in text
        assert 'wise_edge_requests_total{path="unknown",status="404"} 1.0' in text
        assert 'wise_edge_phase_seconds_count{phase="decode"} 1.0' in text


@pytest.mark.parametrize("kind", ["coco", "outlines", "overlay", "mask", "cutout"])
def test_an_answer_may_be_a_file_as_the_command_writes_it(kind: Kind) -> None:
    image = load_image(png())
    with serving(demo=True) as (client, _):
        answer = ask(client, output=kind)
        stored = client.post("/v1/frames", files={"image": png()}).json()["frame"]
        again = client.post(f"/v1/frames/{stored}/segment", json={"query": "the ring", "output": kind})
        streamed = ask(client, output=kind, headers={"accept": "text/event-stream"})
        result = gated_session()[0].segment(image, "the ring")
    assert answer.content == again.content == encode_result(result, image, kind, ".png", "image")
    assert answer.headers["content-type"] == MEDIA_TYPES[kind]
    assert answer.headers["wise-edge-notes"] == OTHER_PICTURE
    assert streamed.json()["error"] == f"output: {kind} cannot be streamed; remove Accept or output"


def test_there_is_no_mask_of_an_answer_that_cannot_be_read() -> None:
    with serving() as (client, policy):
        policy.write = lambda *_: "no answer"
        assert ask(client).json()["status"] == "unreadable"
        answer = ask(client, output="mask")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("there is no mask, since there is no answer: ")
