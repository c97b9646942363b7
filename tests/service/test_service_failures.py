"""Failures of the engine and of the service itself: a status, one line, and the log has the rest."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import numpy as np
import pytest

import fake_session
from gated_service import gated_session, serving
from service_client import ask
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.service import answering
from wise_edge.service.answering import SegmentRequest, Service
from wise_edge.service.limits import Limits


def test_a_failing_engine_is_reported_and_the_next_query_is_answered() -> None:
    with serving() as (client, _):
        failed = ask(client, "fail")
        assert (failed.status_code, failed.json()["error"]) == (500, "the engine is lost")
        assert ask(client).status_code == 200


def test_a_bug_is_reported_in_json_and_logged(caplog: pytest.LogCaptureFixture) -> None:
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
        service = Service(gated_session()[0], Limits(), QueryMeter(None))
        request = SegmentRequest("bug" if place == "engine" else "the ring")
        received = [event async for event in service.stream(np.zeros((20, 30, 3), np.uint8), request, "")]
        service.close()
        return received

    received = asyncio.run(asyncio.wait_for(stream(), 10))
    error = {"error": "internal error; see the service's log", "status": 500}
    assert received[-1] == f"event: error\ndata: {json.dumps(error)}\n\n"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "index 7 is out of bounds" in caplog.text


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
    received = capfd.readouterr().err.splitlines()
    assert len(received) == 1, received
    assert received[0].startswith(line)
