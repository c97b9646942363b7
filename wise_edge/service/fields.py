"""The fields of a request's body: of a form, or of JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.extras import require
from wise_edge.files.documents import parse_json
from wise_edge.ranges import label

MULTIPART, FORM, JSON = "multipart/form-data", "application/x-www-form-urlencoded", "application/json"
_MOST_FIELDS = 100
_MOST_MARKS = 2000
"""Commas, brackets and braces of JSON with an image: flat values take their own size in memory, others 30 times it."""


def media_type(header: str) -> str:
    """Return the media type that a Content-Type header names."""
    return header.partition(";")[0].strip().lower()


async def read_fields(request: Any, short_bytes: int) -> dict[str, Any]:
    """Return a body's fields by name; the image as bytes.

    A form may be multipart or URL-encoded. JSON has the image in base64, bare or as a data URL. A JSON object that says
    it is a URL-encoded form is JSON, because that is what `curl -d` says of every body. Empty values of a form are left
    out, since that is how browsers send fields that were not filled in.

    Args:
        request: a Starlette request whose body was not read yet.
        short_bytes: JSON of more bytes must be flat; see `_MOST_MARKS`.

    Raises:
        HTTPException: 400, 415 or 422: the body cannot be read, or there are fields in the address.
        QueryCancelledError: the client disconnected.
        UsageError: the image is not base64.
    """
    refusal: Any = require("fastapi", "serve").HTTPException
    from starlette.requests import ClientDisconnect

    if request.query_params:
        named = label(next(iter(request.query_params)))
        raise refusal(422, f"{named}: send it in the body, not in the address")
    try:
        fields = await _read(request, short_bytes, refusal)
    except ClientDisconnect:
        raise QueryCancelledError("the client disconnected") from None
    if isinstance(image := fields.get("image"), str):
        fields["image"] = _decode(image)
    return fields


async def _read(request: Any, short_bytes: int, refusal: Any) -> dict[str, Any]:
    kind = media_type(request.headers.get("content-type", ""))
    if kind == MULTIPART:
        try:
            async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
                sent = form.multi_items()
                found = [(name, value if isinstance(value, str) else await value.read()) for name, value in sent]
        except (ValueError, LookupError) as error:  # text in another encoding than the form says, or in an unknown one
            raise refusal(400, "the body cannot be read as a form") from error
        return _unique(found, refusal)
    body = await request.body()
    if not body.strip():
        return {}
    if kind == JSON or (kind in ("", FORM) and body.lstrip().startswith(b"{")):
        if len(body) > short_bytes and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_MARKS:
            raise refusal(422, "the JSON has too many values")
        try:
            return parse_json(body, "the body", "send one JSON object")
        except UsageError as error:
            raise refusal(422, str(error)) from None
    if kind == FORM:
        return _unique((await request.form(max_fields=_MOST_FIELDS)).multi_items(), refusal)
    raise refusal(415, f"send a form ({MULTIPART}) or {JSON}, not {label(kind) or 'a body without a Content-Type'}")


def _unique(pairs: Iterable[tuple[str, Any]], refusal: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise refusal(422, f"{label(name)}: sent twice")
        found[name] = value
    return {name: value for name, value in found.items() if value != ""}


def _decode(text: str) -> bytes:
    try:
        bare = text.partition(",")[2] if text.startswith("data:") else text
        return base64.b64decode("".join(bare.split()), validate=True)  # lines of 76 characters, as base64 wraps them
    except (binascii.Error, ValueError):
        raise UsageError("the image is not base64; send a file in a form, or base64 text in JSON") from None
