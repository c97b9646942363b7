"""Who is answered: clients with the token, and without one only pages and programs of this machine."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

import fake_session
from gated_service import serving
from service_client import ask
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, UsageError
from wise_edge.runtimes.session import Session
from wise_edge.service.guard import OWN_HOSTS
from wise_edge.service.server import listen, parse_proxies


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


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "\t", "naïve", "\x7f"])
def test_a_token_that_no_client_can_send_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="visible ASCII characters without spaces"), serving(token=token):
        pass


def test_the_command_refuses_such_a_token_before_it_loads_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "from_bundle", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setenv("WISE_EDGE_TOKEN", " ")
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "the token (WISE_EDGE_TOKEN) must be visible ASCII characters" in capsys.readouterr().err


@pytest.mark.parametrize("proxies", ["10.0.0.1/8", "proxy.example", "127.0.0.1,", " ", "*,127.0.0.1", "127.0.0.1:80"])
def test_only_addresses_can_be_trusted(
    proxies: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    fake_session.install(monkeypatch)
    assert main(["serve", "--forwarded-allow-ips", proxies]) == 2
    assert "--forwarded-allow-ips takes addresses" in capsys.readouterr().err


def test_addresses_networks_and_all_can_be_trusted() -> None:
    assert parse_proxies("127.0.0.1, 10.0.0.0/8,::1") == ["127.0.0.1", "10.0.0.0/8", "::1"]
    assert parse_proxies("*") == ["*"]


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/metrics", "/nothing", "/v1/segment"])
def test_no_response_is_framed_sniffed_or_stored(path: str) -> None:
    with serving(token="secret") as (client, _):
        for headers in ({}, {"authorization": "Bearer secret"}):
            told = client.get(path, headers=headers).headers
            assert "frame-ancestors 'none'" in told["content-security-policy"]
            assert len(told.get_list("content-security-policy")) == 1
            assert (told["x-frame-options"], told["x-content-type-options"]) == ("deny", "nosniff")
            assert (told["referrer-policy"], told["cache-control"]) == ("same-origin", "no-store")
            assert told["cross-origin-resource-policy"] == told["cross-origin-opener-policy"] == "same-origin"


def test_a_page_runs_its_own_script_alone(local: TestClient) -> None:
    answer = local.get("/")
    script = answer.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in answer.headers["content-security-policy"]
    assert "script-src 'none';" in local.get("/docs").headers["content-security-policy"]


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


def test_the_service_is_opened_with_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WISE_EDGE_TOKEN", raising=False)
    opened = fake_session.install(monkeypatch)
    monkeypatch.setattr("wise_edge.service.server.run_server", lambda *_, **__: None)
    assert main(["serve", "--port", "0", "--pixels", "7056"]) == 0
    assert [call["pixels"] for call in opened.calls] == [7056]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_is_taken_before_models_are_loaded(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    with listen("127.0.0.1", 0) as taken:  # as by a service that loads its models
        port = str(taken.getsockname()[1])
        assert main(["serve", "--host", host, "--port", port]) == 4
    line = f"error: cannot listen on {host}, port {port}: Address already in use; pass another --host or --port\n"
    assert capsys.readouterr().err == line
    assert opened.calls == []


def test_of_two_that_bind_a_port_at_once_one_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux lets both bind it, with SO_REUSEADDR."""
    bind, others = socket.socket.bind, []

    class Meanwhile(socket.socket):
        def bind(self, address: Any) -> None:
            bind(self, address)
            if not others:
                others.append(None)
                others.append(listen("127.0.0.1", self.getsockname()[1]))

    monkeypatch.setattr(socket, "socket", Meanwhile)
    with pytest.raises(DeviceError, match="Address already in use"):
        listen("127.0.0.1", 0)
    others[1].close()


def test_all_addresses_hold_the_port_of_each() -> None:
    try:
        everywhere = listen("::", 0)
    except DeviceError:
        pytest.skip("this machine has no IPv6")
    with everywhere, pytest.raises(DeviceError, match="Address already in use"):
        listen("127.0.0.1", everywhere.getsockname()[1])
