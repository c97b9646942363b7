"""`wise-edge evaluate compare` and `evaluate table`: results of evaluations side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.files.documents import to_json


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Records (--out) of the reference run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Records of the other run, on the same samples.")],
    as_json: options.Json = False,
) -> None:
    """Report how much B's figures differ from A's, with paired 95 % bootstrap intervals."""
    from wise_edge.evaluation.append_log import UNRECORDED
    from wise_edge.evaluation.compare import compare_runs
    from wise_edge.evaluation.record_log import read_log

    runs = read_log(a), read_log(b)
    figures = compare_runs(*runs)
    silent = [path for path, (settings, _) in zip((a, b), runs, strict=True) if settings.data_sha256 == UNRECORDED]
    if len(silent) == 1:  # if neither says it, an earlier version ran both
        options.note(f"{silent[0]} does not say which files its samples are of; an earlier version wrote it")
    if as_json:
        typer.echo(to_json({"a": str(a), "b": str(b), "figures": figures}, indent=2))
    else:
        _print(figures)


def table(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT...", help="Reports printed by 'evaluate --json'.")],
    as_json: options.Json = False,
) -> None:
    """Arrange reports as the paper's table, in Markdown: figures in percent, rationale tokens as means."""
    from wise_edge.errors import UsageError
    from wise_edge.evaluation.compare import format_markdown, tabulate
    from wise_edge.files.documents import read_json

    for path in reports:
        if reports.count(path) > 1:
            raise UsageError(f"{path} is named twice; remove one")
    remedy = "pass a file that 'wise-edge evaluate --json' wrote"
    found = tabulate({str(path): read_json(path, remedy=remedy) for path in reports})
    typer.echo(to_json(found, indent=2) if as_json else format_markdown(found))


def _print(figures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from wise_edge.cli.output.tables import open_console, show

    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("")
    for heading in ("A", "B", "B - A", "95 % interval"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, figure in figures.items():
        low, high = figure["interval"]
        change = f"{figure['difference']:+.3f}"
        shown.add_row(name, f"{figure['a']:.3f}", f"{figure['b']:.3f}", change, f"{low:+.3f} to {high:+.3f}")
    show(open_console(), shown)
