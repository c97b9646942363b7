"""Curves of a training run, drawn from its log files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wise_edge.files.writing import replacing
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, read_log

CURVES = "curves.png"


def draw_curves(folder: Path) -> None:
    """Draw the losses and validation figures of the run in `folder` to its `curves.png`."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, read_log(folder / STEPS))
    _draw_validation(right, read_log(folder / VALIDATIONS))
    with replacing(folder / CURVES) as fresh:
        figure.savefig(fresh, dpi=110, format="png")


def _draw_losses(axes: Axes, records: list[dict[str, Any]]) -> None:
    for name in ("tower", "language", "text", "bce", "edge", "dice", "embedding", "mask"):
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    if axes.lines:
        axes.legend()


def _draw_validation(axes: Axes, records: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(key for record in records for key, value in record.items() if "iou" in _mapping(value))
    for name in names:
        for figure in ("iou", "iou_50"):
            points = [(record["step"], record[name][figure]) for record in records if name in record]
            axes.plot(*zip(*points, strict=True), marker=".", label=f"{name} {figure}")
    axes.set(xlabel="step", ylabel="validation", ylim=(0, 1))
    if axes.lines:
        axes.legend()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
