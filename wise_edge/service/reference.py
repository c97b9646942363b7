"""The API reference: the OpenAPI document as a page that loads nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from wise_edge.drawing.web import render
from wise_edge.service import samples
from wise_edge.service.guard import OPEN_TO_ALL
from wise_edge.service.schema import REFUSALS

_STYLE = """<style>
main { max-width: 920px; } section { padding: 4px 16px; }
th, td { text-align: left; white-space: normal; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; width: 18%; } .fields td:nth-child(2) { width: 26%; }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px;
  margin: 4px 0 12px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
h2 { margin: 0 0 4px; } h2 + p { color: var(--plain); } nav ul { columns: 320px; list-style: none; padding: 0; }
article { border-top: 1px solid var(--line); margin-top: 32px; padding-top: 28px; }
h3 { color: var(--quiet); font-weight: 500; } a { color: var(--accent); } code { font-size: 0.92em; }
.verb { color: var(--accent); margin-right: 8px; }
@media (max-width: 560px) { section { padding: 4px 8px; } td { padding: 6px; }
  .fields td, .fields td:nth-child(n) { display: block; width: auto; padding: 1px 6px; }
  .fields td:not(:last-child) { border: 0; } }
</style>"""


def render_reference(schema: Mapping[str, Any], address: str, with_token: bool) -> str:
    """Return the page.

    Args:
        schema: the OpenAPI document.
        address: of the service, as its reader sees it, for the curl lines.
        with_token: whether clients must send a token.
    """
    info = schema["info"]
    calls = [(verb, path, call) for path, verbs in schema["paths"].items() for verb, call in verbs.items()]
    links = (f'<li><a href="#{_anchor(verb, path)}">{_name(verb, path)}</a></li>' for verb, path, _ in calls)
    token = (
        "<p>Send the service's token with each request. The lines below take it from the environment variable "
        "<code>WISE_EDGE_TOKEN</code>.</p>"
    )
    head = [
        _STYLE,
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f'<p>{escape(info["description"])} For programs: <a href="openapi.json">openapi.json</a>. To try it in the '
        'browser: <a href=".">the page</a>.</p>',
        "<p>A body is a form or JSON; unknown fields are refused by name. The lines below use the example picture, "
        "<code>example.png</code>.</p>",
        token if with_token else "",
        f"<nav><ul>{''.join(links)}</ul></nav>",
    ]
    articles = ["".join(_describe(*call, address, with_token)) for call in calls]
    return render("wise-edge, API reference", [*head, *map(_article, [*articles, *_schemas(schema), _FAILURES])])


def _describe(verb: str, path: str, call: Mapping[str, Any], address: str, with_token: bool) -> Iterator[str]:
    yield f'<h2 id="{_anchor(verb, path)}">{_name(verb, path)}</h2><p>{escape(call["summary"])}.</p>'
    if told := call.get("description"):
        yield f"<p>{_text(told)}</p>"
    needs_token = with_token and path not in OPEN_TO_ALL
    for sample in call.get("x-codeSamples", ()):
        yield f"<h3>{escape(sample['label'])}</h3>" if sample["label"] else ""
        yield f"<pre><code>{escape(samples.at(sample['source'], address, needs_token))}</code></pre>"
    contents = call.get("requestBody", {}).get("content", {})
    rows: list[tuple[str, ...]] = [
        (f"<code>{escape(each['name'])}</code>", "in the path", escape(each.get("description", "")))
        for each in call.get("parameters", ())
    ]
    if contents:
        body = next(iter(contents.values()))["schema"]
        rows += [_field(name, about, name in body.get("required", ())) for name, about in body["properties"].items()]
        yield f"<h3>Body: {', '.join(f'<code>{escape(kind)}</code>' for kind in contents)}</h3>"
    if rows:
        yield _table("fields", rows)
    yield "<h3>Answers</h3>"
    failures = {str(status): about["description"] for status, about in REFUSALS.items()}
    own = {status: about for status, about in call["responses"].items() if about["description"] != failures.get(status)}
    rows = [_answer(status, about) for status, about in own.items()]
    if shared := call["responses"].keys() - own.keys():
        rows.append(("others", ", ".join(f'<a href="#failures">{status}</a>' for status in sorted(shared))))
    yield _table("", rows)


def _field(name: str, about: Mapping[str, Any], needed: bool | None = None) -> tuple[str, str, str]:
    default = about.get("default")
    shown = "" if default is None else f"; default {escape(str(default).lower())}"
    text = about.get("description", "")
    kind = escape(_type(about))
    if needed is not None:  # a request leaves out what it has no value for
        kind = kind.removesuffix(" or null") + (", required" if needed else shown)
    return f"<code>{escape(name)}</code>", kind, _text(text[:1].upper() + text[1:])


def _type(about: Mapping[str, Any]) -> str:
    """Return the type of a value in words."""
    if "anyOf" in about:
        return " or ".join(_type(each) for each in about["anyOf"])
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    if "contentMediaType" in about:
        return "file"
    if "$ref" in about:
        return str(about["$ref"].rpartition("/")[2])
    if "prefixItems" in about:
        return f"{len(about['prefixItems'])} {_type(about['prefixItems'][0])}s"
    if about.get("type") == "array":
        return f"list of {_type(about['items'])}"
    kind = str(about.get("type", ""))
    return {"boolean": "true | false", "string": "text"}.get(kind, kind)


def _answer(status: str, about: Mapping[str, Any]) -> tuple[str, ...]:
    told = _text(about.get("description", ""))
    for kind, content in about.get("content", {}).items() if status.startswith("2") else ():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        told += f"<br><code>{escape(kind)}</code>" + (f': <a href="#{name}">{name}</a>' if name else "")
    return f"<code>{escape(status)}</code>", told


def _schemas(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of what is answered."""
    for name, about in schema["components"]["schemas"].items():
        rows = [_field(key, value) for key, value in about.get("properties", {}).items()]
        yield f'<h2 id="{name}">{name}</h2><p>{_text(about.get("description", ""))}</p>{_table("fields", rows)}'


def _table(kind: str, rows: Sequence[tuple[str, ...]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<section><table class="{kind}">{lines}</table></section>'


_FAILURES = '<h2 id="failures">Failures</h2><p>Each is JSON with the one field <code>error</code>.</p>' + _table(
    "", [(f"<code>{status}</code>", escape(about["description"])) for status, about in REFUSALS.items()]
)


def _article(inner: str) -> str:
    return f"<article>{inner}</article>"


def _text(text: str) -> str:
    """Return text as HTML, with what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _name(verb: str, path: str) -> str:
    return f'<code><span class="verb">{escape(verb.upper())}</span>{escape(path)}</code>'


def _anchor(verb: str, path: str) -> str:
    return escape(f"{verb}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}")
