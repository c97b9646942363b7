"""The service's page to try it on, and what its pages may load."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from html import escape
from pathlib import Path

from wise_edge.drawing.overlay import COLORS
from wise_edge.drawing.plain import COLOR_NAMES
from wise_edge.policy.prompts import VARIANTS
from wise_edge.service import example

_LABELS = {
    "wise-s": "short rationale",
    "wise-infer": "concise rationale",
    "verbose": "long rationale",
    "answer": "no rationale",
}
"""What the page calls our variants; it leaves out "wise", which is for trainings."""
_ASSETS = Path(__file__).parents[1] / "assets" / "service"
_SCRIPTS = ("drawing.js", "live.js", "asking.js")


def read_page(variants: Collection[str], default: str, demo: bool) -> str:
    """Return the page to try the service on.

    Args:
        variants: the policy's, which the page offers.
        default: the one that is selected.
        demo: open with the example.
    """
    offered = [*(name for name in _LABELS if name in variants), *(name for name in variants if name not in VARIANTS)]
    options = [(name, f"{_LABELS[name]} ({name})" if name in _LABELS else name) for name in offered or variants]
    if {"verbose", "wise-s"} <= set(variants):
        options.append(("verbose,wise-s", "compare verbose with wise-s"))
    lines = (
        f'<option value="{escape(value)}"{" selected" if value == default else ""}>{escape(text)}</option>'
        for value, text in options
    )
    paints = (
        f"[[{', '.join(map(str, color))}], {names.split()}]" for color, names in zip(COLORS, COLOR_NAMES, strict=True)
    )
    script = "".join(['\n"use strict";\n', *(_read(name) for name in _SCRIPTS)])
    parts = {
        "<!-- variants -->": "".join(lines),
        "<!-- queries -->": " ".join(f'<button type="button">{escape(query)}</button>' for query in example.QUERIES),
        "<body>": f'<body data-example="{"open" if demo else ""}">',
        "<!-- script -->": script.replace("/* paints */", ", ".join(paints)),
    }
    page = _read("page.html")
    for place, part in parts.items():
        page = page.replace(place, part)
    return page


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


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
