"""A curl line for each call, for the API reference and the OpenAPI document."""

from __future__ import annotations

from typing import Any

from wise_edge.service import example

ADDRESS = "http://127.0.0.1:8020"
"""What stands for the service in the samples; the reference puts its own address."""
QUERY = next(iter(example.QUERIES))
_NEEDS_TOKEN = ' -H "Authorization: Bearer $WISE_EDGE_TOKEN"'
_AS_JSON = '"Content-Type: application/json"'
_FIELD = f'-F query="{QUERY}"'
_STORE = f"""FRAME=$(curl -s -F image=@example.png {ADDRESS}/v1/frames | sed 's/.*"frame":"\\([^"]*\\)".*/\\1/')"""

EXAMPLE = (("Get a picture to try", f"curl -o example.png {ADDRESS}{example.PATH}"),)
SEGMENT = (
    ("A form", f"curl -F image=@example.png {_FIELD} {ADDRESS}/v1/segment"),
    (
        "A file: what was found, cut out",
        f"curl -F image=@example.png {_FIELD} -F output=cutout -o cutout.png {ADDRESS}/v1/segment",
    ),
    (
        "The rationale while it is written",
        f'curl -N -H "Accept: text/event-stream" -F image=@example.png {_FIELD} {ADDRESS}/v1/segment',
    ),
    (
        "JSON, with the picture in base64",
        f"""printf '{{"query": "{QUERY}", "image": "%s"}}' "$(base64 -w0 example.png)" | """
        f"curl -H {_AS_JSON} -d @- {ADDRESS}/v1/segment",
    ),
)
STORE = (("A form", f"curl -F image=@example.png {ADDRESS}/v1/frames"), ("Keep its name", _STORE))
ASK = (
    ("JSON", f"""curl -H {_AS_JSON} -d '{{"query": "the yellow star"}}' {ADDRESS}/v1/frames/$FRAME/segment"""),
    ("A form", f'curl --data-urlencode query="the yellow star" -d mask=png {ADDRESS}/v1/frames/$FRAME/segment'),
)
DELETE = (("", f"curl -X DELETE {ADDRESS}/v1/frames/$FRAME"),)


def get(path: str) -> dict[str, Any]:
    """Return the sample of a call without fields, as `extra` does."""
    return extra((("", f"curl {ADDRESS}{path}"),))


def extra(samples: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return samples as the OpenAPI extension that documentation tools show.

    https://redocly.com/docs/realm/content/api-docs/openapi-extensions/x-code-samples
    """
    return {"x-codeSamples": [{"lang": "Shell", "label": label, "source": line} for label, line in samples]}


def at(line: str, address: str, with_token: bool) -> str:
    """Return a sample for a service at an address, as `http://robot:8020`, that requires a token or none."""
    line = line.replace(ADDRESS, address)
    return line.replace("curl", f"curl{_NEEDS_TOKEN}", 1) if with_token else line
