"""Options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wise_edge.runtimes.backends import list_names


def option(metavar: str, text: str, **limits: Any) -> Any:
    """Return an option with a value, named like its parameter.

    Args:
        metavar: what `--help` shows for the value.
        text: the line in `--help`.
        limits: `min` and `max` of numbers.
    """
    return typer.Option(metavar=metavar, help=text, **limits)


def note(line: str) -> None:
    """Say on stderr what a user should know about a result; the command goes on."""
    typer.echo(f"note: {line}", err=True)


Bundle = Annotated[Path | None, option("DIR", "Bundle to run; the embedded one by default.")]
Variant = Annotated[
    str | None,
    option("NAME", "Prompt variant: verbose, wise, wise-infer, wise-s or answer; the bundle's default if omitted."),
]
PolicyBackend = Annotated[str, option("NAME", f"Runtime of the policy: {list_names('policy')}.")]
MaskBackend = Annotated[str, option("NAME", f"Runtime of the segmenter: {list_names('mask')}.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
Rerun = Annotated[
    str | None, option("FILE|connect", "Also log to the Rerun viewer: to a .rrd file, or to a running viewer.")
]
