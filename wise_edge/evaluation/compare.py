"""Evaluations side by side: two runs on the same samples, and many runs as the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.evaluation.append_log import UNRECORDED, differing_fields
from wise_edge.evaluation.evaluate import QUANTILES
from wise_edge.evaluation.records import MaskRecord, Settings, shown_figures
from wise_edge.mapping import from_mapping
from wise_edge.metrics import METRIC_MODES_BY_NAME, RESAMPLES, paired_bootstrap, ratio
from wise_edge.ranges import Checked, Count, Index, Name, NotNegative, Share

COLUMNS = {
    "reasonseg/val": ("ReasonSeg val", ("giou", "ciou")),
    "reasonseg/test": ("ReasonSeg test", ("giou", "ciou")),
    "refcoco/testA": ("RefCOCO testA", ("ciou",)),
    "refcoco+/testA": ("RefCOCO+ testA", ("ciou",)),
    "refcocog/test": ("RefCOCOg test", ("ciou",)),
    **{f"grefcoco/{split}": (f"gRefCOCO {split}", ("giou", "ciou", "n_acc")) for split in ("val", "testA", "testB")},
}
"""The columns of the paper's table, then gRefCOCO's: data set and split to heading and figures; rationale tokens follow
each."""

_CELL = ("samples", "giou", "ciou", "n_acc", "rationale_tokens_mean")
_OTHER_FIGURES = ("giou", "ciou")
_HEADINGS = {"giou": "gIoU", "ciou": "cIoU", "n_acc": "N-acc"}
_COMPARABLE = ("dataset", "split", "samples", "metric_mode", "data_sha256")


def compare_runs(
    a: tuple[Settings, Sequence[MaskRecord]], b: tuple[Settings, Sequence[MaskRecord]]
) -> dict[str, dict[str, Any]]:
    """Compare the figures of two runs on the same samples.

    Args:
        a: settings and records of the reference run.
        b: settings and records of the other run.

    Returns:
        Figure to "a", "b", "difference" (b minus a) and "interval", the difference's [low, high], 95 %, from a paired
        bootstrap. Samples that either run dropped count in neither.

    Raises:
        UsageError: the runs have different samples, or no sample counts in both.
    """
    first, second = _pair(a, b)
    pairs = [(x.terms(), y.terms()) for x, y in zip(first, second, strict=True)]
    shown = shown_figures(first), shown_figures(second)
    figures = [figure for figure in shown[0] if figure in shown[1]]
    return {figure: _difference([(x[figure], y[figure]) for x, y in pairs]) for figure in figures}


def compare_latencies(
    a: tuple[Settings, Sequence[MaskRecord]], b: tuple[Settings, Sequence[MaskRecord]]
) -> dict[str, dict[str, Any]]:
    """Compare the times from image to mask of two runs, in ms; otherwise as `compare_runs`.

    Returns:
        Name of a quantile ("p50", "p90") to "a", "b", "difference" and "interval"; empty if a record has no time.
    """
    runs = _pair(a, b)
    if any("total" not in record.latency_ms for run in runs for record in run):
        return {}
    first, second = (np.array([record.latency_ms["total"] for record in run]) for run in runs)
    drawn = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    compared = {}
    for name, share in QUANTILES.items():
        x, y = float(np.percentile(first, share)), float(np.percentile(second, share))
        differences = np.percentile(second[drawn], share, axis=1) - np.percentile(first[drawn], share, axis=1)
        interval = [float(edge) for edge in np.percentile(differences, (2.5, 97.5))]
        compared[name] = {"a": x, "b": y, "difference": y - x, "interval": interval}
    return compared


def _pair(
    a: tuple[Settings, Sequence[MaskRecord]], b: tuple[Settings, Sequence[MaskRecord]]
) -> tuple[list[MaskRecord], list[MaskRecord]]:
    """Return the records of two runs that count in both, in the same order; raises as `compare_runs`."""
    said = [name for name in _COMPARABLE if UNRECORDED not in (getattr(a[0], name), getattr(b[0], name))]
    if names := [name for name in differing_fields(a[0], b[0]) if name in said]:
        raise UsageError(f"the two runs differ in {', '.join(names)}; evaluate both with the same settings")
    first, second = ({record.id: record for record in records} for _, records in (a, b))
    if first.keys() != second.keys():
        missing = len(first.keys() ^ second.keys())
        raise UsageError(f"{missing} samples are in only one run; finish both with 'wise-edge evaluate --resume'")
    kept = [name for name in first if first[name].dropped is None and second[name].dropped is None]
    if not kept:
        raise UsageError("no sample was counted in both runs; see 'dropped' in their records")
    return [first[name] for name in kept], [second[name] for name in kept]


def tabulate(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Arrange reports of `wise-edge evaluate --json` as the paper's table.

    Args:
        reports: name (of the file) to report.

    Returns:
        "metric_mode", "columns" (data set and split, the paper's first) and "rows": each with "model", "variant",
        "pixels" and "cells", from column to "samples", "giou", "ciou", "n_acc" and "rationale_tokens_mean".

    Raises:
        UsageError: a report is invalid, two are of the same run, or their metric modes differ; gRefCOCO's own ("gres")
            goes with any.
    """
    modes: dict[str, str] = {}
    rows: dict[tuple[str, str, int | None], dict[str, Any]] = {}
    for name, report in reports.items():
        read = _read_report(name, report)
        column, variant = f"{read.dataset}/{read.split}", read.variant or "true prompt"
        if read.metric_mode != METRIC_MODES_BY_NAME.get(read.dataset):
            modes.setdefault(read.metric_mode, name)
        cells = rows.setdefault((read.model, variant, read.pixels), {})
        if column in cells:
            raise UsageError(f"{name} is a second report of {read.model}, {variant}, on {column}; remove one")
        cells[column] = {figure: getattr(read, figure) for figure in _CELL}
    if len(modes) > 1:
        raise UsageError(
            f"{' and '.join(modes.values())} differ in metric mode; evaluate all with the same --metric-mode"
        )
    found = dict.fromkeys(column for cells in rows.values() for column in cells)
    return {
        "metric_mode": next(iter(modes), "gres"),
        "columns": [*(column for column in COLUMNS if column in found), *(c for c in found if c not in COLUMNS)],
        "rows": [
            {"model": model, "variant": variant, "pixels": pixels, "cells": cells}
            for (model, variant, pixels), cells in rows.items()
        ],
    }


def format_markdown(table: Mapping[str, Any]) -> str:
    """Return the table of `tabulate` as Markdown: figures in percent, tokens as means."""
    layout = [(column, *COLUMNS.get(column, (column.replace("/", " "), _OTHER_FIGURES))) for column in table["columns"]]
    head = ["policy", "variant"]
    for column, heading, figures in layout:
        counts = sorted({row["cells"][column]["samples"] for row in table["rows"] if column in row["cells"]})
        samples = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        head += [f"{heading} ({samples}) {_HEADINGS[figures[0]]}", *map(_HEADINGS.__getitem__, figures[1:]), "tokens"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in table["rows"]:
        cells = [text for column, _, figures in layout for text in _texts(row["cells"].get(column), figures)]
        budget = "" if row["pixels"] is None else f", {row['pixels']} px"
        lines.append([row["model"], f"{row['variant']}{budget}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _difference(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> dict[str, Any]:
    a, b = zip(*pairs, strict=True)
    (a_tops, a_bottoms), (b_tops, b_bottoms) = zip(*a, strict=True), zip(*b, strict=True)
    first, second = ratio(a_tops, a_bottoms), ratio(b_tops, b_bottoms)
    interval = paired_bootstrap(a_tops, b_tops, a_bottoms, b_bottoms)
    return {"a": first, "b": second, "difference": second - first, "interval": list(interval)}


@dataclass(frozen=True)
class _Report(Checked):
    """What the table shows of a report."""

    dataset: Name
    split: Name
    samples: Index
    model: Name
    variant: Name | None
    metric_mode: Name
    giou: Share
    ciou: Share
    n_acc: Share | None = None
    rationale_tokens_mean: NotNegative | None = None
    pixels: Count | None = None


def _read_report(name: str, report: Mapping[str, Any]) -> _Report:
    shown = {field.name: report[field.name] for field in fields(_Report) if field.name in report}
    try:
        return from_mapping(_Report, shown)
    except UsageError as error:
        raise UsageError(
            f"{name} is not a report of 'wise-edge evaluate --json' ({error}); pass what that printed"
        ) from error


def _texts(cell: Mapping[str, Any] | None, figures: Sequence[str]) -> list[str]:
    if cell is None:
        return ["-"] * (len(figures) + 1)
    values = [None if cell[figure] is None else 100 * cell[figure] for figure in figures]
    return ["-" if value is None else f"{value:.1f}" for value in (*values, cell["rationale_tokens_mean"])]
