"""The service in its own process: the command on the embedded models, or a server on fakes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command on the embedded models and yield the process and its address."""
    with started([sys.executable, "-m", "wise_edge", "serve", "--port", "0", *options]) as running:
        yield running


FAKES = """
import sys, time
from fake_session import FakeMask, FakePolicy
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.session import Session
from wise_edge.service import answering, server
from wise_edge.service.app import make_app
from wise_edge.service.limits import Limits
from wise_edge.service.server import run_server

class Policy(FakePolicy):
    def generate(self, encoded, request):
        while request.query == "wait until you are cancelled":
            time.sleep(0.01)
            request.check_cancelled()
        while request.query == sys.argv[3]:
            time.sleep(0.01)
        time.sleep(1 if request.query == "take a second" else 0)
        return super().generate(encoded, request)

answering.CLOSE_S, server._MORE_S = 0.2, 0
limits = Limits(connections=8, head_s=float(sys.argv[1]), query_s=float(sys.argv[2]), write_s=1, waiting=4)
rails = PowerSource("rails", "power", ("VDD_IN",), (0,), None, 0.002, lambda: (10.0,), (None,))
app = make_app(Session(Policy(), FakeMask(), {}), limits, meter=QueryMeter(rails))
say = lambda url: print("serving", url, file=sys.stderr, flush=True)
run_server(app, "127.0.0.1", 0, limits, say, proxies=sys.argv[4:])
"""


@contextmanager
def fakes(head_s: float = 60) -> Iterator[tuple[str, int]]:
    """Run a server on fakes that accepts eight connections, and yield its host and port."""
    with fake_process(head_s) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


@contextmanager
def fake_process(
    head_s: float = 60, query_s: float = 600, proxies: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server on fakes, and yield the process and its address."""
    with started([*fake_command(head_s, query_s, "hang"), *proxies]) as running:
        yield running


def fake_command(head_s: float, query_s: float, hanging: str) -> list[str]:
    """Return the command of a server on fakes, whose policy never ends a query `hanging`."""
    return [sys.executable, "-c", FAKES, str(head_s), str(query_s), hanging]


def fake_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=fake_environment()) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        try:
            assert line.startswith("serving http://"), line + running.stderr.read()
            yield running, line.split()[1]
        finally:
            running.kill()
