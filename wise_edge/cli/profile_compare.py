"""`wise-edge profile compare`: compares two profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from wise_edge.profiling.comparison import Compared, Ratio


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference, written with profile --out FILE.json.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The profile to compare with it.")],
    max_regression: Annotated[
        float | None,
        option(
            "PERCENT",
            "Exit with code 5 if B costs significantly more than A, by more than PERCENT, or lacks a run of A.",
            min=0,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare the times, energy and memory of two profiles: ratios B / A with 95 % intervals."""
    from wise_edge.errors import UsageError, VerificationError
    from wise_edge.profiling.comparison import compare_profiles, find_differences, find_regressions, find_unmatched
    from wise_edge.profiling.document import read_document

    first, second = read_document(a), read_document(b)
    try:
        compared = compare_profiles(first, second)
        differences = find_differences(first, second)
        missing = [] if max_regression is None else find_unmatched(first, second)[0]
        regressions = [] if max_regression is None else find_regressions(compared, max_regression / 100)
        document = {
            "a": str(a),
            "b": str(b),
            "differences": differences,
            "runs": [asdict(run) for run in compared],
            "regressions": regressions,
            "missing": missing,
        }
        text = to_json(document)
    except (LookupError, ValueError) as error:  # without a reading, or with ratios that no float holds
        raise UsageError(f"{a} and {b} cannot be compared ({error}); profile again with --out FILE.json") from error
    if as_json:
        typer.echo(text)
    else:
        _print(compared, differences)
    failures = []
    if regressions:
        failures.append(f"B costs more than A by more than {max_regression:g} %: {'; '.join(regressions)}")
    if missing:
        failures.append(f"only in A: {'; '.join(missing)}")
    if failures:
        raise VerificationError("; ".join(failures))


def _print(compared: Sequence[Compared], differences: Sequence[str]) -> None:
    from rich.table import Table

    from wise_edge.cli.output.tables import open_console, show

    console = open_console()
    for run in compared:
        how = "query by query" if run.paired else "different queries"
        table = Table("", "A", "B", "B / A", "interval", title=f"{run.name}, {how}", title_justify="left")
        for figure in run.figures:
            interval = "-" if figure.interval is None else "{:.3f} to {:.3f}".format(*figure.interval)
            a, b = (_value(figure, value) for value in (figure.a, figure.b))
            table.add_row(figure.name.replace("_", " "), a, b, f"{figure.ratio:.3f}", interval)
        tokens = [f"{count:.1f}" for count in run.rationale_tokens]
        table.add_row("rationale tokens", *tokens, "", "")
        if run.ciou is not None:
            table.add_row("cIoU", *(f"{value:.3f}" for value in run.ciou), "", "")
        show(console, table)
    for line in differences:
        console.print(f"! {line}", markup=False)


def _value(figure: Ratio, value: float) -> str:
    from wise_edge.drawing.units import joules, milliseconds, size

    if figure.name == "memory":
        return size(value)
    return joules(value) if figure.name == "energy" else milliseconds(value)
