"""Running the application with uvicorn until somebody asks it to end, and ending well."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wise_edge.errors import DeviceError
from wise_edge.extras import require
from wise_edge.service.limits import Limits

_KEEP_ALIVE_S = 10
_MORE_S = 5
"""How much longer than a query may take the end waits for answers."""


def run_server(app: Any, host: str, port: int, limits: Limits, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then is answered, new connections are refused.

    Args:
        app: of `make_app`.
        host: address to listen on.
        port: likewise; 0 takes any that is free.
        limits: of clients.
        say: takes the address once queries are answered.

    Raises:
        MissingExtraError: uvicorn is not installed.
        DeviceError: the address cannot be listened on.
    """
    uvicorn = require("uvicorn", "serve")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        limit_concurrency=limits.connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.query_s) + _MORE_S,
        server_header=False,
    )

    base: Any = uvicorn.Server

    class Server(base):  # type: ignore[misc]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Take the signals and, unlike uvicorn, do not raise them again: an asked-for end is exit code 0."""
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                address, taken = sockets[0].getsockname()[:2]
                say(f"http://{f'[{address}]' if ':' in address else address}:{taken}")

    listener = _listen(host, port)
    with listener:
        Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise DeviceError(f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another") from error
    return listener
