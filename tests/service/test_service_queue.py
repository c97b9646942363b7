"""The service's queue: clients take turns, and queries that are late, abandoned or too many end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from gated_service import serving
from service_client import ask
from waiting import wait_for
from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.service import answering
from wise_edge.service.limits import Limits
from wise_edge.service.query_queue import BusyError, QueryQueue


def test_queries_beyond_the_limit_are_told_when_to_retry() -> None:
    with serving(Limits(waiting=2)) as (client, policy):
        policy.gate.clear()
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(answer.status_code == 429 for answer in answers) == 3)
        assert "wise_edge_waiting 3.0" in client.get("/metrics").text
        policy.gate.set()
        for thread in threads:
            thread.join(timeout=10)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429, 429, 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)


def test_clients_take_turns_and_none_fills_the_line() -> None:
    order: list[str] = []
    begun, gate = threading.Event(), threading.Event()

    def hold(cancel: threading.Event) -> None:
        begun.set()
        gate.wait(10)

    def noting(name: str) -> Callable[[threading.Event], None]:
        return lambda cancel: order.append(name)

    async def ask_all() -> None:
        queue = QueryQueue(Limits(waiting=8))
        first = asyncio.create_task(queue.run(hold, "greedy"))
        await asyncio.to_thread(begun.wait, 10)
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


def test_an_abandoned_query_frees_its_place() -> None:
    gate = threading.Event()

    async def leave() -> None:
        queue = QueryQueue(Limits(waiting=1))
        first = asyncio.create_task(queue.run(lambda cancel: gate.wait(30)))
        second = asyncio.create_task(queue.run(lambda cancel: None))
        await asyncio.sleep(0)
        assert queue.waiting == 2
        with pytest.raises(BusyError):
            queue.check_room()
        second.cancel()
        while queue.waiting != 1:
            await asyncio.sleep(0.001)
        third = asyncio.create_task(queue.run(lambda cancel: "third"))
        await asyncio.sleep(0)
        gate.set()
        assert (await first, await third) == (True, "third")
        queue.close()

    asyncio.run(asyncio.wait_for(leave(), 30))


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
        await asyncio.sleep(0)
        assert not waiting.done()
        gone.set()
        with pytest.raises(QueryCancelledError, match="the client disconnected"):
            await asyncio.wait_for(waiting, 10)
        await asyncio.sleep(0)
        assert ended.is_set()

    asyncio.run(leave())


def test_an_image_is_not_decoded_if_its_query_has_no_room() -> None:
    with serving(Limits(waiting=1)) as (client, policy):
        policy.gate.clear()
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(2)]
        threads[0].start()
        assert policy.begun.acquire(timeout=20)
        threads[1].start()
        wait_for(lambda: "wise_edge_waiting 2.0" in client.get("/metrics").text)
        refused = ask(client, image=b"no image")
        kept = client.post("/v1/frames", files={"image": b"no image"})
        policy.gate.set()
        for thread in threads:
            thread.join(timeout=10)
        assert (refused.status_code, kept.status_code) == (429, 429)
        assert ask(client, image=b"no image").status_code == 400


def test_few_images_are_decoded_at_once_and_few_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
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
        wait_for(lambda: len(found) == 3)
        gate.set()
        for thread in threads:
            thread.join(timeout=30)
    assert sorted(found) == [201] * 4 + [429] * 3
    assert most == 2


def test_limits_let_something_through() -> None:
    with pytest.raises(UsageError, match="limit waiting must be above 0 and at most 1e12, not 0"):
        Limits(waiting=0)
