"""Draws the charts of a profile's page as SVG without scripts; the page's style sets the colors of text and lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from wise_edge.drawing.panel import OTHER_COLOR, PHASE_COLORS
from wise_edge.drawing.svg import AXIS, WIDTH, Scale, axis, rect, svg, text
from wise_edge.drawing.units import joules, milliseconds
from wise_edge.profiling.words import name_rows, query_energy_j

_LABELS = 190  # width for the names of rows
_ROW = 34
_LABEL = 190  # maximum width of the label next to a disc
Run = Mapping[str, Any]


def color_of(phase: str) -> str:
    """Return a phase's color for CSS."""
    return "#{:02x}{:02x}{:02x}".format(*PHASE_COLORS.get(phase, OTHER_COLOR))


def draw_phases(runs: Sequence[Run], phases: Sequence[str]) -> str:
    """Draw a stacked bar of mean phases for each run; if phases overlap, it is longer than the total.

    Args:
        runs: the runs of a document.
        phases: names of the stacked phases, in order.
    """
    sums = [sum(max(0.0, run["latency_ms"][phase]["mean"]) for phase in phases) for run in runs]
    scale = Scale(0.0, max(sums) * 1.08, _LABELS, WIDTH - 90)
    parts = [axis(scale, len(runs) * _ROW, "ms, mean")]
    for row, (name, run, total) in enumerate(zip(name_rows(runs), runs, sums, strict=True)):
        y = row * _ROW
        parts.append(_label(name, y))
        reached = 0.0
        for phase in phases:
            mean = max(0.0, run["latency_ms"][phase]["mean"])
            left, right = scale(reached), scale(reached + mean)
            title = f"{phase.replace('_', ' ')}: {milliseconds(mean)}"
            parts.append(rect(left, y + 5, right - left, _ROW - 10, color_of(phase), title))
            reached += mean
        parts.append(text(scale(total) + 8, y + _ROW / 2, milliseconds(run["latency_ms"]["total"]["mean"]), "middle"))
    return svg(len(runs) * _ROW + AXIS, parts, "mean latency by phase")


def draw_distribution(runs: Sequence[Run]) -> str:
    """Draw a dot for each query's total, with marks at p50, p90 and p99."""
    totals = [[reading["latency_ms"]["total"] for reading in run["readings"]] for run in runs]
    low, high = min(map(min, totals)), max(map(max, totals))
    margin = 0.06 * (high - low or high)
    scale = Scale(max(0.0, low - margin), high + margin, _LABELS, WIDTH - 90)
    row_px = _ROW + 10
    parts = [axis(scale, len(runs) * row_px + 8, "ms, complete query")]
    for row, (name, run, values) in enumerate(zip(name_rows(runs), runs, totals, strict=True)):
        y = row * row_px + 8
        parts.append(_label(name, y + 5))
        for number, value in enumerate(values):
            height = y + 14 + (number * 7 % 17)  # spread over the row, the same each time
            parts.append(f'<circle cx="{scale(value):.1f}" cy="{height:.1f}" r="2.6" class="dot"/>')
        for quantile in ("p50", "p90", "p99"):
            x = scale(run["latency_ms"]["total"][quantile])
            title = f"{quantile}: {milliseconds(run['latency_ms']['total'][quantile])}"
            parts.append(
                f'<g><title>{title}</title><path d="M{x:.1f} {y + 6}V{y + row_px - 6}" class="{quantile}"/></g>'
            )
        x = scale(run["latency_ms"]["total"]["p50"])
        parts.append(text(x, y + 4, "p50", "middle", "tiny", "middle"))
    return svg(len(runs) * row_px + 8 + AXIS, parts, "distribution of the latency of complete queries")


def draw_tradeoff(runs: Sequence[Run]) -> str | None:
    """Draw accuracy over latency: a disc for each run, sized by its rationale; None without accuracy."""
    shown = [run for run in runs if run["accuracy"]]
    if not shown:
        return None
    height = 320
    times = [run["latency_ms"]["total"]["p50"] for run in shown]
    edges = [edge for run in shown for edge in run["accuracy"]["ciou_interval"]]
    pad = 0.25 * (max(times) - min(times) or max(times))
    across = Scale(max(0.0, min(times) - pad), max(times) + pad, 70, WIDTH - 40)
    up = Scale(max(0.0, min(edges) - 0.03), min(1.0, max(edges) + 0.03), height, 16)
    parts = [axis(across, height, "ms, p50 of a query"), *_grid(up, "cIoU")]
    named = sorted(zip(name_rows(shown), shown, strict=True), key=lambda pair: pair[1]["latency_ms"]["total"]["p50"])
    places = [across(run["latency_ms"]["total"]["p50"]) for _, run in named]
    for number, (name, run) in enumerate(named):
        x, y = places[number], up(run["accuracy"]["ciou"])
        # So that labels do not overlap, neighbors are labeled above and below, and on the left if the next is close.
        side = -1 if number % 2 else 1
        is_close = number + 1 < len(places) and places[number + 1] - x < _LABEL < x
        edge, anchor = (x - 6, "end") if is_close else (x + 6, "start")
        low, high = run["accuracy"]["ciou_interval"]
        radius = 5 + 1.6 * run["rationale_tokens"] ** 0.5
        energy = query_energy_j(run)
        notes = [f"{run['rationale_tokens']:.0f} rationale tokens", *([] if energy is None else [joules(energy)])]
        title = f"{name}: cIoU {run['accuracy']['ciou']:.3f}, {milliseconds(run['latency_ms']['total']['p50'])}"
        parts += [
            f'<path d="M{x:.1f} {up(low):.1f}V{up(high):.1f}" class="interval"/>',
            f'<g><title>{escape(title)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="disc"/></g>',
            text(edge, y + side * (radius + 22) - 8, name, "middle", anchor=anchor),
            text(edge, y + side * (radius + 22) + 8, ", ".join(notes), "middle", "tiny", anchor),
        ]
    return svg(height + AXIS, parts, "accuracy over latency")


def draw_timeline(run: Run, phases: Sequence[str], total_ms: float) -> str:
    """Draw when the phases of the median query ran, and the power around it if it was read.

    Args:
        run: a run of a document.
        phases: names of the rows, in order.
        total_ms: time that fills the width, so that runs can be compared.
    """
    timeline = run["timeline"]
    rows = [phase for phase in phases if any(span["phase"] == phase for span in timeline["spans"])]
    power = next((trace for trace in timeline["power"] if trace["time_ms"]), None)
    above = 110 if power else 0
    scale = Scale(-0.1 * total_ms if power else 0.0, total_ms * (1.1 if power else 1.0), _LABELS, WIDTH - 20)
    height = above + len(rows) * 24
    parts = [axis(scale, height, "ms since the image arrived")]
    if power:
        parts += _power(power, scale, above)
    for row, phase in enumerate(rows):
        y = above + row * 24
        parts.append(text(_LABELS - 12, y + 12, phase.replace("_", " "), "middle", "label", "end"))
        for span in (span for span in timeline["spans"] if span["phase"] == phase):
            left, right = scale(span["start_ms"]), scale(span["end_ms"])
            title = f"{phase.replace('_', ' ')}: {milliseconds(span['end_ms'] - span['start_ms'])}"
            parts.append(rect(left, y + 3, max(1.0, right - left), 18, color_of(phase), title))
    return svg(height + AXIS, parts, f"timeline of the median query, {run['variant']}")


def _power(trace: Mapping[str, Any], across: Scale, height: float) -> Iterable[str]:
    pairs = [
        (at, watts)
        for at, watts in zip(trace["time_ms"], trace["power_w"], strict=False)
        if across.low <= at <= across.high
    ]
    if not pairs:
        return []
    up = Scale(0.0, max(watts for _, watts in pairs) * 1.1, height - 12, 8)
    line = " ".join(f"{across(at):.1f},{up(watts):.1f}" for at, watts in pairs)
    label = text(_LABELS - 12, height / 2, "power, W", "middle", "label", "end")
    grid = [
        f'<path d="M{across.start} {up(tick):.1f}H{across.end}" class="grid"/>'
        + text(across.start + 3, up(tick) - 5, f"{tick:g}", "middle", "tiny")
        for tick in up.ticks(3)
    ]
    return [label, *grid, f'<polyline points="{line}" class="power"/>']


def _grid(up: Scale, unit: str) -> list[str]:
    lines = [
        f'<path d="M70 {up(tick):.1f}H{WIDTH - 40}" class="grid"/>'
        + text(62, up(tick), f"{tick:.2f}", "middle", "tiny", "end")
        for tick in up.ticks(5)
    ]
    return [*lines, text(0, up.end + 4, unit, "middle", "tiny")]


def _label(name: str, y: float) -> str:
    return text(_LABELS - 12, y + _ROW / 2, name, "middle", "label", "end")
