"""Checks that run before and while a request's body is read: token, host, size and speed; headers of every response.

Plain ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), so that a body that is too large is never in memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.service import example
from wise_edge.service.access_log import Served
from wise_edge.service.bodies import Bodies
from wise_edge.service.fields import JSON, MULTIPART, media_type
from wise_edge.service.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
OPEN_TO_ALL = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", example.PATH)
"""Paths that reveal nothing about images and need no token."""
TAKE_IMAGES = ("/v1/segment", "/v1/frames")
"""Paths that take an image, in a form or in JSON."""
OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]")
BUG = "internal error; see the service's log"
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer browsers may hide the page's own origin from the service
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"deny"),
)
"""Headers of every response that does not set them itself.

Source: https://owasp.org/www-project-secure-headers/; those for TLS are the proxy's.
"""
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
        record: receives each request after its response.

    Raises:
        UsageError: no client can send the token.
        MissingExtraError: FastAPI is not installed.
    """

    def __init__(
        self, app: App, limits: Limits, token: str | None, own_hosts: tuple[str, ...], record: Callable[[Served], None]
    ) -> None:
        self._app, self._limits, self._token, self._record = app, limits, token, record
        self._own_hosts, self._bodies = own_hosts, Bodies(limits)
        if token is not None:
            check_token(token)
        # FastAPI passes on no other exception that is raised while a body is read.
        self._refusal: Any = require("fastapi", "serve").HTTPException

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, sent_bytes, began_s = 0, 0, time.perf_counter()
        head_alone = scope["method"] == "HEAD"

        async def watched_send(message: Message) -> None:
            nonlocal status, sent_bytes
            sent_bytes += 0 if head_alone else len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status, own = message["status"], list(message.get("headers", ()))
                set_already = {name for name, _ in own}
                message = {**message, "headers": own + [each for each in _HEADERS if each[0] not in set_already]}
            await send(message)

        headers = {name.lower(): value for name, value in scope["headers"]}
        too_large = partial(self._too_large, scope["path"], headers)
        body = _Body(receive, client_of(scope), self._limits, self._bodies, too_large, self._refusal)
        # The server goes by its own scope and sends no body (https://datatracker.ietf.org/doc/html/rfc9110#section-9.3.2).
        asked = {**scope, "method": "GET"} if head_alone else scope
        try:
            self._check_head(scope, headers)
            await self._app(asked, body.receive, watched_send)
        except self._refusal as refused:
            if not status:
                await _refuse(watched_send, refused.status_code, str(refused.detail))
        except Exception:
            _LOG.exception("a request failed")
            if not status:
                await _refuse(watched_send, 500, BUG)
        finally:
            body.forget()
            path = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
            route = getattr(asked.get("route"), "path", None)
            ms = (time.perf_counter() - began_s) * 1e3
            client = client_of(scope)
            self._record(Served(client, scope["method"], path.decode("latin-1"), route, status, ms, sent_bytes))

    def _check_head(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        if self._own_hosts:
            self._check_hosts(headers)
        if self._token is not None and scope["path"] not in OPEN_TO_ALL:
            shown = headers.get(b"authorization", b"")
            if not secrets.compare_digest(shown, f"Bearer {self._token}".encode()):
                raise self._refusal(401, "send the service's token: Authorization: Bearer TOKEN")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (refused := self._too_large(scope["path"], headers, int(length))) is not None:
            raise refused

    def _too_large(self, path: str, headers: Mapping[bytes, bytes], length: int) -> Exception | None:
        """Return the refusal of a body of so many bytes, or more; None if it may have them."""
        kind = media_type(headers.get(b"content-type", b"").decode("latin-1"))
        with_image = kind == MULTIPART or (kind == JSON and path in TAKE_IMAGES)
        most = self._limits.body_bytes if with_image else min(self._limits.question_bytes, self._limits.body_bytes)
        if length <= most:
            return None
        what = "a body" if with_image else "a body without an image"
        hint = "" if with_image or path not in TAKE_IMAGES else f"; one with an image says Content-Type: {JSON}"
        refused: Exception = self._refusal(413, f"{what} may have at most {most} bytes{hint}")
        return refused

    def _check_hosts(self, headers: dict[bytes, bytes]) -> None:
        host = _without_port(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._own_hosts:
            raise self._refusal(403, f"this service answers as {' and '.join(self._own_hosts)}, not as {host[:100]}")
        origin = headers.get(b"origin")  # browsers send it, as "null" if they hide the page
        page = host if origin is None else _without_port(origin.decode("latin-1").partition("://")[2])
        if page not in self._own_hosts:
            raise self._refusal(403, "this service answers only its own page, not pages of other sites")


class _Body:
    """A request's body, which is rejected if it is too large or too slow, or if too many others are in memory."""

    def __init__(
        self,
        receive: Receive,
        client: str,
        limits: Limits,
        bodies: Bodies,
        too_large: Callable[[int], Exception | None],
        refusal: Any,
    ) -> None:
        self._receive, self._client, self._limits, self._bodies = receive, client, limits, bodies
        self._too_large, self._refusal = too_large, refusal
        self._deadline_s = asyncio.get_running_loop().time() + limits.body_s
        self._taken, self._whole = 0, False

    async def receive(self) -> Message:
        """Return the request's next message."""
        if self._whole:  # after the body comes only the disconnect, whenever that is
            return await self._receive()
        left_s = self._deadline_s - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left_s))
        except asyncio.TimeoutError:
            raise self._refusal(408, f"the body did not arrive within {self._limits.body_s:g} s") from None
        length = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if (refused := self._too_large(self._taken + length)) is not None:
            raise refused
        if not self._bodies.add(self._client, length):
            raise self._refusal(429, "too many bodies are in memory; retry in 1 s", {"retry-after": "1"})
        self._taken += length
        return message

    def forget(self) -> None:
        """Count the body no longer, after its request has ended."""
        self._bodies.remove(self._client, self._taken)


def check_token(token: str) -> None:
    """Reject a token that no client can send as `Authorization: Bearer ...`.

    Source: https://datatracker.ietf.org/doc/html/rfc9110#section-5.5; spaces at the end of a header are no part of it.

    Raises:
        UsageError: it is empty, or holds a space, a control character or one outside of ASCII.
    """
    if not re.fullmatch("[!-~]+", token):
        raise UsageError(
            "the token (WISE_EDGE_TOKEN) must be visible ASCII characters without spaces, or clients cannot send it"
        )


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the address that sent a request."""
    return scope["client"][0] if scope.get("client") else ""


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = to_json({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")]  # the rest of the body is not read
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
