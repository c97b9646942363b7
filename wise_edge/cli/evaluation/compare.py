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
    from wise_edge.evaluation.compare import compare_latencies, compare_runs
    from wise_edge.evaluation.record_log import read_log

    runs = read_log(a), read_log(b)
    figures, latencies = compare_runs(*runs), compare_latencies(*runs)
    silent = [path for path, (settings, _) in zip((a, b), runs, strict=True) if settings.data_sha256 == UNRECORDED]
    if len(silent) == 1:  # if neither says it, an earlier version ran both
        options.note(f"{silent[0]} does not say which files its samples are of; an earlier version wrote it")
    if as_json:
        typer.echo(
            to_json({"a": str(a), "b": str(b), "figures": figures, "latency_ms": {"total": latencies}}, indent=2)
        )
    else:
        _print(figures, latencies)


def table(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT...", help="Reports printed by 'evaluate --json'.")],
    as_json: options.Json = False,
) -> None:
    """Arrange reports as the paper's table, in Markdown: figures in percent, rationale tokens as means."""
    from wise_edge.errors import UsageError
    from wise_edge.evaluation.compare import format_markdown, tabulate

    for path in reports:
        if reports.count(path) > 1:
            raise UsageError(f"{path} is named twice; remove one")
    found = tabulate({str(path): _read_report(path) for path in reports})
    typer.echo(to_json(found, indent=2) if as_json else format_markdown(found))


def _read_report(path: Path) -> dict[str, Any]:
    from wise_edge.errors import UsageError
    from wise_edge.evaluation.record_log import read_log
    from wise_edge.files.documents import read_json

    try:
        return read_json(path, remedy="pass a file that 'wise-edge evaluate --json' wrote")
    except UsageError as error:
        try:
            read_log(path)
        except UsageError:
            raise error from None
        raise UsageError(
            f"{path} holds records, and the table is made of reports; "
            f"print that of the run by its command with --resume --out {path} --json > REPORT.json"
        ) from None


def _print(figures: Mapping[str, Mapping[str, Any]], latencies: Mapping[str, Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from wise_edge.cli.output.tables import open_console, show
    from wise_edge.evaluation.records import LABELS

    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("")
    for heading in ("A", "B", "B - A", "95 % interval"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, figure in figures.items():
        shown.add_row(LABELS[name], *_row(figure, 3))
    for name, time in latencies.items():
        shown.add_row(f"latency {name}, ms", *_row(time, 1))
    show(open_console(), shown)


def _row(figure: Mapping[str, Any], decimals: int) -> tuple[str, ...]:
    def signed(value: float) -> str:
        return f"{round(value, decimals) + 0.0:+.{decimals}f}"  # -0.0 + 0.0 is 0.0

    low, high = map(signed, figure["interval"])
    a, b = (f"{figure[run]:.{decimals}f}" for run in ("a", "b"))
    return a, b, signed(figure["difference"]), f"{low} to {high}"
