"""Prints a profile on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wise_edge.drawing.units import joules, milliseconds, size
from wise_edge.profiling import words


def print_profile(document: Mapping[str, Any], details: bool = False) -> None:
    """Print the runs side by side and how power was read, then the phases of each run if details are asked for."""
    from wise_edge.cli.output.tables import open_console, show

    console = open_console()
    show(console, _side_by_side(document["runs"]))
    for line in words.describe_energy(document["power"]):
        console.print(line, markup=False)
    for line in words.describe_power(document["power"]):
        console.print(line, markup=False)
    for line in words.describe_doubts(document):
        console.print(f"! {line}", markup=False)
    for run in document["runs"] if details else ():
        console.print()
        show(console, _phases(run))
        console.print(_remarks(run), markup=False)


def _phases(run: Mapping[str, Any]) -> Any:
    from rich.table import Table

    title = f"{words.name_run(run)}: {run['queries']} queries after {run['warm_up']} warm-up queries"
    table = Table("phase", "p50", "p90", "p99", "mean", "95 %", title=title, title_justify="left")
    for name, spread in run["latency_ms"].items():
        low, high = spread["interval"]
        times = [milliseconds(spread[key]) for key in ("p50", "p90", "p99", "mean")]
        table.add_row(name.replace("_", " "), *times, f"{milliseconds(low)} to {milliseconds(high)}")
    return table


def _remarks(run: Mapping[str, Any]) -> str:
    step = "" if run["step_ms"] is None else f", {run['step_ms']:.2f} ms"
    step += "" if run["step_j"] is None else f" and {joules(run['step_j'])}"
    each = f"{step} each" if step else ""
    lines = [f"{run['rationale_tokens']:.1f} rationale tokens, {run['decode_steps']:.1f} decode steps{each}"]
    reasons: dict[str, None] = {}
    for part, found in run["energy"].items():
        for energy in found[:1]:
            if energy["energy_j"] is None:
                reasons[f"{words.PART_LABELS[part]}: not measurable, {energy['reason']}"] = None
            else:
                net = "" if energy["net_j"] is None else f", {joules(energy['net_j'])} above idle"
                window = f"{energy['times']} in {energy['window_s']:.1f} s"
                spent = f"{joules(energy['energy_j'])} ± {energy['error_share']:.1%}{net}"
                lines.append(f"{words.PART_LABELS[part]}: {spent} ({window})")
    return "\n".join([*lines, *reasons])


def _side_by_side(runs: list[Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("tokens", "cIoU", "first token", "p50", "p99", "energy", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, run in zip(words.name_rows(runs), runs, strict=True):
        accuracy, latency, energy_j = run["accuracy"], run["latency_ms"], words.query_energy_j(run)
        table.add_row(
            name,
            f"{run['rationale_tokens']:.1f}",
            "-" if accuracy is None else f"{accuracy['ciou']:.3f}",
            milliseconds(latency["first_token"]["p50"]),
            milliseconds(latency["total"]["p50"]),
            milliseconds(latency["total"]["p99"]),
            "-" if energy_j is None else joules(energy_j),
            size(run["memory"]["host_peak_bytes"]),
        )
    return table
