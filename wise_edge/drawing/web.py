"""Self-contained pages without network access or scripts, in the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --back: #fbfcfe; --raised: #fff; --line: #dde3ec; --plain: #2a3342; --quiet: #64708a;
  --accent: #0b7fab; --warn: #b4540a; }
@media (prefers-color-scheme: dark) { :root { --back: #111621; --raised: #182030; --line: #2b364b; --plain: #dbe3ef;
  --quiet: #93a0b8; --accent: #19c8f0; --warn: #ffa657; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--plain);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 4px; }
h3 { font-size: 15px; margin: 20px 0 4px; } p { margin: 4px 0 12px; color: var(--quiet); max-width: 78ch; }
section { background: var(--raised); border: 1px solid var(--line); border-radius: 10px; padding: 16px; margin: 10px 0;
  overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr:last-child td { border-bottom: 0; }
th { color: var(--quiet); font-weight: 500; } td small { color: var(--quiet); }
.doubts { border-color: var(--warn); color: var(--warn); } .doubts ul { margin: 0; padding-left: 20px; }
.legend span { display: inline-block; margin-right: 16px; color: var(--quiet); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
svg { display: block; width: 100%; min-width: 620px; height: auto; } svg text { fill: var(--plain); font-size: 14px; }
svg text.tiny { fill: var(--quiet); font-size: 12px; } svg .grid { stroke: var(--line); fill: none; }
svg .dot { fill: var(--accent); fill-opacity: .35; } svg .disc { fill: var(--accent); fill-opacity: .85; }
svg .interval { stroke: var(--accent); stroke-opacity: .5; stroke-width: 2; }
svg .p50 { stroke: var(--plain); stroke-width: 2.5; } svg .p90, svg .p99 { stroke: var(--quiet); stroke-width: 1.5; }
svg .p99 { stroke-dasharray: 3 3; } svg .power { stroke: var(--warn); stroke-width: 2; fill: none; }
summary { cursor: pointer; color: var(--accent); margin: 6px 0; } footer { color: var(--quiet); margin-top: 40px; }
"""


def render(title: str, blocks: Iterable[str]) -> str:
    """Return a page of HTML blocks; empty blocks are left out."""
    head = [
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style>',
    ]
    body = "\n".join(block for block in blocks if block)
    return "\n".join(
        ["<!doctype html>", '<html lang="en"><head>', *head, f"</head><body><main>{body}</main></body></html>", ""]
    )


def section(inner: str) -> str:
    """Return a block with a border."""
    return f"<section>{inner}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain text."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"
