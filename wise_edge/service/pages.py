"""The pages of a service: the one to try it with, and its reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "assets" / "service.html"
_STYLE = """
:root { color-scheme: light dark; --back: #fbfcfe; --line: #dde3ec; --plain: #2a3342; --quiet: #64708a;
  --accent: #0b7fab; }
@media (prefers-color-scheme: dark) { :root { --back: #111621; --line: #2b364b; --plain: #dbe3ef; --quiet: #93a0b8;
  --accent: #19c8f0; } }
body { margin: 0 auto; max-width: 860px; padding: 32px 20px 64px; background: var(--back); color: var(--plain);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h2 { font-size: 17px; margin: 34px 0 2px; } code { font-size: 14px; } p { margin: 2px 0 8px; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; } th { color: var(--quiet); font-weight: 500; }
td, th { text-align: left; padding: 4px 12px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
a { color: var(--accent); }
"""


def read_page() -> str:
    """Return the page to try the service with."""
    return PAGE.read_text(encoding="utf-8")


def render_reference(schema: Mapping[str, Any]) -> str:
    """Return the service's OpenAPI document as a page that fetches nothing."""
    blocks = [
        f"<h1>{escape(schema['info']['title'])} {escape(schema['info']['version'])}</h1>",
        f"<p>{escape(schema['info'].get('description', ''))} The same for programs: "
        '<a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            blocks.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            blocks += [f"<p>{escape(operation.get(key, ''))}</p>" for key in ("summary", "description")]
            blocks.append(_fields(operation, schema))
            blocks.append(_statuses(operation))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    title = '<title>wise-edge, reference</title><link rel="icon" href="data:,">'
    return f'<!doctype html><html lang="en"><head>{head}{title}</head><body>{"".join(blocks)}</body></html>'


def _fields(operation: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = _resolve(content["schema"], schema)
        needed = body.get("required", ())
        for name, field in body.get("properties", {}).items():
            where = f"{kind}{', required' if name in needed else ''}"
            rows.append((name, where, f"{field.get('description', '')} {_values(field)}"))
    return _table(("field", "in", ""), rows) if rows else ""


def _values(field: Mapping[str, Any]) -> str:
    options = [field, *field.get("anyOf", ())]
    named = next((option["enum"] for option in options if "enum" in option), ())
    return f"One of {', '.join(map(str, named))}." if named else ""


def _statuses(operation: Mapping[str, Any]) -> str:
    rows = [(status, answer.get("description", "")) for status, answer in operation["responses"].items()]
    return _table(("status", ""), rows)


def _resolve(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        found: Any = schema
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        part = found
    return part


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def cells(row: tuple[str, ...], tag: str) -> Iterator[str]:
        return (f"<{tag}>{escape(cell)}</{tag}>" for cell in row)

    lines = [f"<tr>{''.join(cells(head, 'th'))}</tr>", *(f"<tr>{''.join(cells(row, 'td'))}</tr>" for row in rows)]
    return f"<table>{''.join(lines)}</table>"
