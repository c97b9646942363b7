"""Reports of a WISE training: curves of the run, and tables of sample completions with their rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wise_edge.files.documents import to_json
from wise_edge.files.writing import replacing
from wise_edge.training.common.curves import CURVES
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, read_log

_SMOOTHED = 0.9  # weight of the running mean at each step
_PRINTED = 4  # completions in the table on stderr
_LOG_WIDTH = 180  # characters of the table if stderr is not a terminal


def draw_wise_curves(folder: Path) -> None:
    """Draw `curves.png` of the run in `folder` from its `train.jsonl` and `validation.jsonl`."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    rewards, lengths, accuracy = figure.subplots(1, 3)
    steps, validations = read_log(folder / STEPS), read_log(folder / VALIDATIONS)
    _draw_rewards(rewards, steps)
    _draw_lengths(lengths, steps, validations)
    _draw_accuracy(accuracy, validations)
    with replacing(folder / CURVES) as fresh:
        figure.savefig(fresh, dpi=110, format="png")


def save_samples(
    path: Path, samples: Sequence[str], texts: Sequence[str], rewards: Mapping[str, Sequence[float]], more: bool = False
) -> None:
    """Write completions to a file and print the first of them on stderr.

    Args:
        path: JSON-lines file; replaced if it exists.
        samples: id of the sample of each completion.
        texts: completions.
        rewards: term -> reward of each completion.
        more: append to the file and print nothing.
    """
    rows = [
        {"sample": sample, "rewards": {name: values[i] for name, values in rewards.items()}, "completion": text}
        for i, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]
    path.parent.mkdir(exist_ok=True)
    with path.open("a" if more else "w", encoding="utf-8") as file:
        file.writelines(to_json(row) + "\n" for row in rows)
    if more:
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=_LOG_WIDTH)
    table = Table(*rewards, "completion", title=path.stem, box=box.SIMPLE)
    for i, text in enumerate(texts[:_PRINTED]):
        table.add_row(*(f"{values[i]:.2f}" for values in rewards.values()), escape(text))
    console.print(table)


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
    """Return running means, which start at the first value."""
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
