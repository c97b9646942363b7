"""The service's pages: one to try it on, and the API reference."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from wise_edge.drawing.web import render, section, table
from wise_edge.policy.prompts import VARIANTS

_LABELS = {
    "wise-s": "short rationale",
    "wise-infer": "concise rationale",
    "verbose": "long rationale",
    "answer": "no rationale",
}
"""What the page calls our variants; it leaves out "wise", which is for trainings."""
_OPTIONS = "<!-- variants -->"
PAGE = Path(__file__).parents[1] / "assets" / "service.html"


def read_page(variants: Collection[str], default: str) -> str:
    """Return the page to try the service on, which offers a policy's variants, the default one selected."""
    offered = [*(name for name in _LABELS if name in variants), *(name for name in variants if name not in VARIANTS)]
    options = [(name, f"{_LABELS[name]} ({name})" if name in _LABELS else name) for name in offered or variants]
    if {"verbose", "wise-s"} <= set(variants):
        options.append(("verbose,wise-s", "compare verbose with wise-s"))
    lines = (
        f'<option value="{escape(value)}"{" selected" if value == default else ""}>{escape(text)}</option>'
        for value, text in options
    )
    return PAGE.read_text(encoding="utf-8").replace(_OPTIONS, "".join(lines))


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: it runs its own script and loads nothing from elsewhere."""
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "'self' blob: data:",
        "media-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def render_reference(schema: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a page that loads nothing else."""
    info = schema["info"]
    style = "<style>td, th { text-align: left; white-space: normal; }</style>"  # words, where reports have numbers
    link = '<a href="openapi.json">openapi.json</a>'
    blocks = [
        style,
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))} For programs: {link}.</p>",
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            blocks.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            blocks += [f"<p>{escape(operation.get(key, ''))}</p>" for key in ("summary", "description")]
            rows = list(_fields(operation, schema))
            blocks.append(section(table(("field", "in", ""), rows)) if rows else "")
            answers = [(status, answer.get("description", "")) for status, answer in operation["responses"].items()]
            blocks.append(section(table(("status", ""), answers)))
    return render("wise-edge, reference", blocks)


def _fields(operation: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, location and meaning of each field of a request."""
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], parameter["in"], parameter.get("description", "")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = _resolve(content["schema"], schema)
        needed = body.get("required", ())
        for name, field in body.get("properties", {}).items():
            where = f"{kind}{', required' if name in needed else ''}"
            yield name, where, f"{field.get('description', '')} {_values(field)}"


def _values(field: Mapping[str, Any]) -> str:
    options = [field, *field.get("anyOf", ())]
    named = next((option["enum"] for option in options if "enum" in option), ())
    return f"One of {', '.join(map(str, named))}." if named else ""


def _resolve(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        found: Any = schema
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        part = found
    return part
