"""Prints the report of `wise-edge evaluate` on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from wise_edge.cli import options
from wise_edge.drawing.units import milliseconds
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from rich.table import Table

_WHOLE = ("rationale_tokens_mean", "answer_tokens_mean")
"""Figures that are shown without decimals."""
SHOWN_PROBLEMS = 5
_COUNTED = {"gres": ", counted as gRefCOCO does (gres)", "paper": ", counted as WISE's reference does (paper)"}
"""What is said of a metric mode other than the default."""


def print_report(report: Mapping[str, Any], as_json: bool) -> None:
    """Print a report to stdout and the samples that were left out to stderr."""
    from wise_edge.cli.output.tables import open_console, show

    problems = report["problems"]
    for line in problems[:SHOWN_PROBLEMS]:
        typer.echo(f"left out: {line}", err=True)
    if len(problems) > SHOWN_PROBLEMS:
        typer.echo(f"left out: {len(problems) - SHOWN_PROBLEMS} more; --json lists all of them", err=True)
    if empty := report["empty_masks"]:
        options.note(f"{empty} of {report['samples']} masks are empty: the segmenter marked no pixel")
    if as_json:
        typer.echo(to_json(report, indent=2))
        return
    console = open_console()
    how = "true box and points" if report["variant"] is None else f"variant {report['variant']}"
    budget = "" if report["pixels"] is None else f", at most {report['pixels']} pixels"
    mode = _COUNTED.get(report["metric_mode"], "")
    console.print(
        f"{report['samples']} samples of {report['dataset']}/{report['split']}, {how}{budget}{mode}", markup=False
    )
    show(console, _table(report))
    console.print("Below each figure: its 95 % bootstrap interval over samples.", style="dim")


def _table(report: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    from wise_edge.evaluation.records import LABELS

    columns = {"all": report, **(report["by_kind"] if len(report["by_kind"]) > 1 else {})}
    table = Table(box=box.SIMPLE, padding=0, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("samples", *(str(figures["samples"]) for figures in columns.values()), end_section=True)
    for name, label in LABELS.items():
        if name in report:
            decimals = 0 if name in _WHOLE else 3
            table.add_row(
                label, *(_cell(figures[name], figures["intervals"][name], decimals) for figures in columns.values())
            )
    for quantile in ("p50", "p90"):
        cells = (
            _time(figures["latency_ms"]["total"][quantile], figures["intervals"]["latency_ms"]["total"][quantile])
            for figures in columns.values()
        )
        table.add_row(f"latency {quantile}", *cells)
    return table


def _time(value_ms: float | None, interval_ms: tuple[float, float] | None) -> str:
    if value_ms is None or interval_ms is None:
        return "-"
    value, (low, high) = milliseconds(value_ms), map(milliseconds, interval_ms)
    unit = value.partition(" ")[2]
    if low.endswith(f" {unit}") and high.endswith(f" {unit}"):  # the value says it, and the column stays narrow
        low, high = (text.removesuffix(f" {unit}") for text in (low, high))
    return f"[bold]{value}[/]\n[dim]{low}-{high}[/]"


def _cell(value: float | None, interval: tuple[float, float] | None, decimals: int) -> str:
    if value is None or interval is None:
        return "-"
    low, high = interval
    return f"[bold]{value:.{decimals}f}[/]\n[dim]{low:.{min(decimals, 2)}f}-{high:.{min(decimals, 2)}f}[/]"
