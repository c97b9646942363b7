"""Run the application with uvicorn until it is asked to stop, and shut down gracefully."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wise_edge.errors import DeviceError, UsageError
from wise_edge.extras import require
from wise_edge.service.access_log import Log
from wise_edge.service.limits import Limits

_KEEP_ALIVE_S = 10
_MORE_S = 5
"""How much longer than a query's time limit the shutdown waits for answers."""


def run_server(
    app: Any,
    host: str,
    port: int,
    limits: Limits,
    say: Callable[[str], None],
    *,
    proxies: Sequence[str] = (),
    listener: socket.socket | None = None,
    log: Log | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and refuse new connections.

    A client that does not send a complete head in time, or does not take what was sent to it, is disconnected, and no
    client may hold more than three quarters of the connections. If a query does not end when the service stops, the
    process ends without it.

    Args:
        app: application from `make_app`.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        limits: bounds on what clients may send.
        say: called with the address once the service answers queries.
        proxies: whose X-Forwarded-For names the client, as from `parse_proxies`; by default nobody's, since any client
            could take turns as many that way.
        listener: from `listen`, before the models were loaded; None listens now.
        log: gets warnings, and is closed at the end; None leaves them where they are.

    Raises:
        MissingExtraError: uvicorn is not installed.
        DeviceError: the address is not available.
        WiseEdgeError: the application did not start, for example because a first query failed.
    """
    uvicorn = require("uvicorn", "serve")
    failures: list[Exception] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            if scope["type"] == "lifespan":
                failures.append(error)
            raise

    config = uvicorn.Config(
        watched,
        http=_make_protocol(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="on",
        limit_concurrency=limits.connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.query_s) + _MORE_S,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )

    if log is not None:  # after uvicorn has set up its own
        log.take_over()
    base: Any = uvicorn.Server

    class Server(base):  # type: ignore[misc]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Handle the signals and, unlike uvicorn, do not raise them again: a requested stop is exit code 0."""
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets: Any = None) -> None:
            spoken, self.lifespan.logger = self.lifespan.logger, logging.Logger("silent", logging.CRITICAL + 1)
            try:
                await super().startup(sockets)
            except SystemExit:  # raised by uvicorn, which would log a traceback
                raise failures[0] if failures else DeviceError("the service did not start") from None
            self.lifespan.logger = spoken
            if self.started:
                address, number = sockets[0].getsockname()[:2]
                say(f"http://{f'[{address}]' if ':' in address else address}:{number}")

    with listener or listen(host, port) as taken:
        try:
            Server(config).run(sockets=[taken])
        finally:
            if log is not None:
                log.close()
    if failures:  # of the shutdown: Python would wait for other threads of the engine
        print(f"error: {failures[0]}", file=sys.stderr, flush=True)
        os._exit(DeviceError.exit_code)


def parse_proxies(text: str) -> list[str]:
    """Return the trusted proxies of a list, separated by commas: addresses, networks, or `*` for all.

    Raises:
        UsageError: it names something else, which uvicorn would take without a word and never match.
    """
    proxies = [part.strip() for part in text.split(",")]
    for proxy in proxies if proxies != ["*"] else ():
        try:
            ipaddress.ip_network(proxy) if "/" in proxy else ipaddress.ip_address(proxy)
        except ValueError as error:
            raise UsageError(
                f"--forwarded-allow-ips takes addresses, networks as in 10.0.0.0/8, or *: {error}"
            ) from None
    return proxies


def _make_protocol(limits: Limits) -> Any:
    """Return uvicorn's HTTP protocol with the bounds that it lacks: on heads, on writing, and on connections a client.

    The timer of the head also runs for the rest of a body that a client sends after it has its answer.
    """
    base: Any = require("uvicorn.protocols.http.h11_impl", "serve").H11Protocol

    class Protocol(base):  # type: ignore[misc]
        _late: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(0)  # pause as soon as the kernel takes no more
            own = [other for other in self.connections if self.client and other.client[0] == self.client[0]]
            if len(own) > limits.share(limits.connections):
                transport.abort()
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            self._stop_watching()
            self._stop_waiting()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.write_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_waiting()

        def _stop_waiting(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _watch_head(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:  # a request has begun
                self._stop_watching()
            elif self._late is None:
                self._late = self.loop.call_later(limits.head_s, self.transport.close)

        def _stop_watching(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Protocol


def listen(host: str, port: int) -> socket.socket:
    """Take an address; clients that connect wait until the service runs.

    A name is looked up as IPv4 first, so that "localhost" and 127.0.0.1 are one place. Listening begins at once: on
    Linux, sockets with SO_REUSEADDR share a port until one of them listens
    (https://man7.org/linux/man-pages/man7/socket.7.html).

    Raises:
        DeviceError: the address is not available.
    """
    listener: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        if listener is not None:
            listener.close()
        reason = error.strerror or error
        raise DeviceError(f"cannot listen on {host}, port {port}: {reason}; pass another --host or --port") from error
    return listener
