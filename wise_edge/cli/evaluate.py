"""`wise-edge evaluate`: accuracy and cost on labelled data, by kind of query, with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli.options import (
    BundleOption,
    ForceOption,
    JsonOption,
    MaskBackendOption,
    PolicyBackendOption,
    VariantOption,
)

if TYPE_CHECKING:
    from rich.table import Table

    from wise_edge.evaluate import MaskRecord

ROWS = {
    "giou": ("gIoU", 3),
    "ciou": ("cIoU", 3),
    "box_accuracy": ("box IoU > 0.5", 3),
    "valid_rate": ("valid", 3),
    "rationale_tokens_mean": ("rationale tokens", 0),
    "answer_tokens_mean": ("answer tokens", 0),
}
"""Figure to its label and decimals."""


def evaluate(
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Labelled data: scenes.")] = "scenes",
    split: Annotated[str, typer.Option(metavar="NAME", help="test, validation or train.")] = "test",
    limit: Annotated[int, typer.Option(metavar="N", help="How many samples, from the first.")] = 100,
    variant: VariantOption = None,
    bundle: BundleOption = None,
    policy_backend: PolicyBackendOption = "auto",
    mask_backend: MaskBackendOption = "auto",
    oracle_prompt: Annotated[
        bool, typer.Option("--oracle-prompt", help="Prompt the segmenter with the true box and points, without policy.")
    ] = False,
    as_json: JsonOption = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one JSON line a sample to this file.")] = None,
    force: ForceOption = False,
) -> None:
    """Measure gIoU, cIoU, box accuracy, valid answers, tokens and latency, with 95 % bootstrap intervals.

    An answer that cannot be read counts as an empty mask.
    """
    from wise_edge.errors import UsageError
    from wise_edge.evaluate import check_scenes, evaluate_masks, evaluate_scenes, summarize
    from wise_edge.files import atomic_write, check_target
    from wise_edge.runtimes.session import Session

    if dataset != "scenes":
        raise UsageError(f"unknown dataset '{dataset}'; choose scenes")
    if oracle_prompt and variant is not None:
        raise UsageError("--oracle-prompt asks no policy; leave out --variant")
    check_scenes(split, limit)
    if out is not None:
        check_target(out, force=force)
    session = Session.from_bundle(bundle, policy_backend=policy_backend, mask_backend=mask_backend)
    variant = None if oracle_prompt else variant or session.policy.default_variant
    stream: Iterable[MaskRecord] = (
        evaluate_masks(session.mask, split, limit) if oracle_prompt else evaluate_scenes(session, split, limit, variant)
    )
    records = _collect(stream, limit)
    if out is not None:
        atomic_write(out, "".join(json.dumps(asdict(record)) + "\n" for record in records).encode(), force=force)
    used = {"mask": session.choices["mask"]} if oracle_prompt else session.choices
    report = {
        "dataset": dataset,
        "split": split,
        "variant": variant,
        "prompt": "truth" if oracle_prompt else "predicted",
        "backends": {part: asdict(choice) for part, choice in used.items()},
        **summarize(records),
    }
    _print(report, as_json)


def _collect(stream: Iterable[MaskRecord], limit: int) -> list[MaskRecord]:
    """Gather records; a progress bar stands on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return list(
        track(stream, "Evaluating", total=limit, console=console, transient=True, disable=not console.is_terminal)
    )


def _print(report: Mapping[str, Any], as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    console = Console(highlight=False)
    how = "true box and points" if report["variant"] is None else f"variant {report['variant']}"
    console.print(f"{report['samples']} samples of {report['dataset']}/{report['split']}, {how}", markup=False)
    console.print(_table(report))
    console.print("Below each figure: its 95 % bootstrap interval over samples.", style="dim")


def _table(report: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    columns = {"all": report, **report["by_kind"]}
    table = Table(box=box.SIMPLE, padding=0, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("samples", *(str(figures["samples"]) for figures in columns.values()), end_section=True)
    for name, (label, decimals) in ROWS.items():
        if name in report:
            table.add_row(
                label, *(_cell(figures[name], figures["intervals"][name], decimals) for figures in columns.values())
            )
    for quantile in ("p50", "p90"):
        cells = (
            _cell(figures["latency_ms"]["total"][quantile], figures["intervals"]["latency_ms"]["total"][quantile], 0)
            for figures in columns.values()
        )
        table.add_row(f"latency {quantile}, ms", *cells)
    return table


def _cell(value: float, interval: tuple[float, float], decimals: int) -> str:
    low, high = interval
    return f"[bold]{value:.{decimals}f}[/]\n[dim]{low:.{min(decimals, 2)}f}-{high:.{min(decimals, 2)}f}[/]"
