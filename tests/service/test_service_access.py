"""Who is answered: clients with the token, and without one only pages and programs of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import fake_session
from gated_service import serving
from service_client import ask
from wise_edge.cli.main import main
from wise_edge.service.guard import OWN_HOSTS


@pytest.fixture(scope="module")
def local() -> Iterator[TestClient]:
    """A client of a service without a token, which knows its own hosts."""
    with serving(own_hosts=OWN_HOSTS) as (client, _):
        yield client


def test_a_token_is_required_where_images_could_be_revealed() -> None:
    with serving(token="secret") as (client, _):
        assert ask(client).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert ask(client, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert ask(client, headers={"authorization": "Bearer secret"}).status_code == 200
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200


def test_a_page_that_points_its_own_name_here_is_refused(local: TestClient) -> None:
    for host, status in (("127.0.0.1:8020", 200), ("localhost", 200), ("[::1]:8020", 200), ("evil.example:8020", 403)):
        assert local.get("/healthz", headers={"host": host}).status_code == status


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
def test_a_page_of_another_site_is_refused(origin: str, status: int, local: TestClient) -> None:
    answer = ask(local, headers={"origin": origin})
    assert answer.status_code == status
    if status == 403:
        assert answer.json() == {"error": "this service answers only its own page, not pages of other sites"}


def test_with_a_token_a_page_may_be_anywhere() -> None:
    with serving(token="secret") as (client, _):
        headers = {"origin": "http://robot.example", "authorization": "Bearer secret"}
        assert ask(client, headers=headers).status_code == 200


def test_another_address_needs_a_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    fake_session.install(monkeypatch)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 is reachable by others: set WISE_EDGE_TOKEN" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 4
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
