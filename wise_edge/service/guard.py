"""Checks that run before and while a request's body is read: token, host, size and speed.

Plain ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), so that a body that is too large is never in memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wise_edge.extras import require
from wise_edge.service.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
OPEN_TO_ALL = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""Paths that reveal nothing about images and need no token."""
OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]")
BUG = "internal error; see the service's log"
_LOG = logging.getLogger(__name__)


class Guard:
    """Passes on requests that are within the limits and carry the token.

    Args:
        app: the guarded application.
        limits: bounds on bodies.
        token: token that clients send as `Authorization: Bearer ...`; None requires none.
        own_hosts: reject requests that name a host other than these, written as in a URL, or that a page of another
            host sends; empty accepts all. Otherwise a web page whose own name resolves to this machine (DNS rebinding),
            or that posts a form here, would be served like a local program.
        count: receives each request's path, as the application declares it, and the status of its response.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """

    def __init__(
        self, app: App, limits: Limits, token: str | None, own_hosts: tuple[str, ...], count: Callable[[str, int], None]
    ) -> None:
        self._app, self._limits, self._token, self._count = app, limits, token, count
        self._own_hosts = own_hosts
        # FastAPI passes on no other exception that is raised while a body is read.
        self._refusal: Any = require("fastapi", "serve").HTTPException

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_head(scope)
            await self._app(scope, self._counted(receive), watched_send)
        except self._refusal as refused:
            if not status:
                await _refuse(watched_send, refused.status_code, str(refused.detail))
        except Exception:
            _LOG.exception("a request failed")
            if not status:
                await _refuse(watched_send, 500, BUG)
        finally:
            self._count(getattr(scope.get("route"), "path", "unknown"), status)

    def _check_head(self, scope: MutableMapping[str, Any]) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._own_hosts:
            self._check_hosts(headers)
        if self._token is not None and scope["path"] not in OPEN_TO_ALL:
            shown = headers.get(b"authorization", b"")
            if not secrets.compare_digest(shown, f"Bearer {self._token}".encode()):
                raise self._refusal(401, "send the service's token: Authorization: Bearer TOKEN")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.body_bytes:
            raise self._too_large(f", this one has {length.decode()}")

    def _check_hosts(self, headers: dict[bytes, bytes]) -> None:
        host = _without_port(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._own_hosts:
            raise self._refusal(403, f"this service answers as {' and '.join(self._own_hosts)}, not as {host[:100]}")
        origin = headers.get(b"origin")  # browsers send it, as "null" if they hide the page
        page = host if origin is None else _without_port(origin.decode("latin-1").partition("://")[2])
        if page not in self._own_hosts:
            raise self._refusal(403, "this service answers only its own page, not pages of other sites")

    def _too_large(self, length: str = "") -> Exception:
        refusal: Exception = self._refusal(413, f"a body may have at most {self._limits.body_bytes} bytes{length}")
        return refusal

    def _counted(self, receive: Receive) -> Receive:
        """Return a `receive` that rejects a body that is too large or too slow."""
        taken, whole, deadline_s = 0, False, asyncio.get_running_loop().time() + self._limits.body_s

        async def counted() -> Message:
            nonlocal taken, whole
            if whole:  # after the body comes only the disconnect, whenever that is
                return await receive()
            left_s = deadline_s - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, left_s))
            except asyncio.TimeoutError:
                raise self._refusal(408, f"the body did not arrive within {self._limits.body_s:g} s") from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > self._limits.body_bytes:
                raise self._too_large()
            return message

        return counted


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")]  # the rest of the body is not read
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
