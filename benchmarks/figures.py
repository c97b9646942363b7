"""What the benchmarks share: their options, and printing what they measured."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--json`, which shows a benchmark's own docstring as its help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def print_result(result: Mapping[str, Any], as_json: bool, *lines: str) -> None:
    """Print lines that describe a result, or the result as one JSON document."""
    print(json.dumps(result) if as_json else "\n".join(lines))


def print_figures(figures: Mapping[str, Any], as_json: bool) -> None:
    """Print one figure per line, or one JSON document."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")


def resident_mb(pid: int | str = "self") -> float:
    """Return the memory of a process that is not shared with files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1e3
