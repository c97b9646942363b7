"""The service in this process, on a policy that waits until a test opens its gate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from fake_session import FakeImage, FakeMask, FakePolicy
from wise_edge.errors import WiseEdgeError
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.session import Session
from wise_edge.service.app import make_app
from wise_edge.service.limits import Limits


class GatedPolicy(FakePolicy):
    """Writes word by word while its gate is open; the warm-up query always passes."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
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


def gated_session() -> tuple[Session, GatedPolicy]:
    policy = GatedPolicy()
    return Session(policy, FakeMask(), {}, frames=4), policy


@contextmanager
def serving(
    limits: Limits | None = None, token: str | None = None, **options: Any
) -> Iterator[tuple[TestClient, GatedPolicy]]:
    """Run the application, called at 127.0.0.1, and yield a client and the policy."""
    session, policy = gated_session()
    app = make_app(session, limits, token, **options)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client, policy
