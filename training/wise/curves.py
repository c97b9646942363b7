"""Curves of a WISE training: rewards, length of the rationale, and accuracy on held-out data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wise_edge.training.common.step_log import read_log

_SMOOTHED = 0.9  # share of the running mean that stays at each step


def draw_wise_curves(folder: Path) -> None:
    """Draw the run in `folder`, from its `train.jsonl` and `validation.jsonl`, to its `curves.png`."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    rewards, lengths, accuracy = figure.subplots(1, 3)
    steps, validations = read_log(folder / "train.jsonl"), read_log(folder / "validation.jsonl")
    _draw_rewards(rewards, steps)
    _draw_lengths(lengths, steps, validations)
    _draw_accuracy(accuracy, validations)
    figure.savefig(folder / "curves.png", dpi=110)


def _draw_rewards(axes: Axes, records: list[dict[str, Any]]) -> None:
    keys = dict.fromkeys(
        key for record in records for key in record if key.startswith("rewards/") and key.endswith("/mean")
    )
    for key in keys:
        _draw(axes, _smooth(_points(records, key)), key.split("/")[1])
    _finish(axes, "reward, running mean")
    axes.set_ylim(0, 1.02)


def _draw_lengths(axes: Axes, records: list[dict[str, Any]], validations: list[dict[str, Any]]) -> None:
    _draw(axes, _smooth(_points(records, "rationale_tokens")), "rollouts")
    for variant in _variants(validations):
        points = [(record["step"], record[variant]["rationale_tokens"]) for record in validations]
        _draw(axes, points, f"{variant}, held out", marker=".")
    _finish(axes, "rationale tokens")
    axes.set_ylim(bottom=0)


def _draw_accuracy(axes: Axes, validations: list[dict[str, Any]]) -> None:
    for variant in _variants(validations):
        for name, style in (("ciou", "-"), ("box_accuracy", ":")):
            points = [(record["step"], record[variant][name]) for record in validations]
            _draw(axes, points, f"{variant} {name}", marker=".", linestyle=style)
    _finish(axes, "held out")


def _variants(validations: list[dict[str, Any]]) -> list[str]:
    return [key for key, value in validations[0].items() if isinstance(value, dict)] if validations else []


def _points(records: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return running means that start at the first value."""
    smooth: list[tuple[int, float]] = []
    for step, value in points:
        before = smooth[-1][1] if smooth else value
        smooth.append((step, _SMOOTHED * before + (1 - _SMOOTHED) * value))
    return smooth


def _draw(axes: Axes, points: list[tuple[int, float]], label: str, **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _finish(axes: Axes, title: str) -> None:
    axes.set(xlabel="step", title=title)
    if axes.lines:
        axes.legend(fontsize="small")
