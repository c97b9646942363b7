"""The report on a bag as a web page: how long each image took, and what the policy would have seen live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from wise_edge.drawing.svg import AXIS, WIDTH, Scale, axis, svg, text
from wise_edge.drawing.units import milliseconds
from wise_edge.drawing.web import render, section, table
from wise_edge.robot.bags import BagReport

_LEFT = 70
_HEIGHT = 240


def render_bag(title: str, report: BagReport, figures: Iterable[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        title: heading of the page.
        report: results of the bag.
        figures: names and values for a table.
    """
    blocks = [f"<h1>{escape(title)}</h1>", section(table(("", ""), figures))]
    live = report.replay
    if live is None:
        return render(title, blocks)
    known = len(report.took_ms) - len(live.age_s)  # frames before the first answer
    blocks += [
        "<h2>How long each image took</h2>",
        "<p>From the image to its mask. Pale dots: live, the policy would have dropped the image.</p>",
        section(_draw(report.took_ms, report.times_s, set(live.grounded), "ms, from image to mask")),
    ]
    if live.age_s:
        ages_ms = [1e3 * age_s for age_s in live.age_s]
        blocks += [
            "<h2>How old the newest answer would have been</h2>",
            "<p>At each frame's arrival, at the recorded rate. Between groundings, masks are followed.</p>",
            section(_draw(ages_ms, report.times_s[known:], None, "ms, age of the newest answer")),
        ]
    return render(title, blocks)


def _draw(values_ms: Sequence[float | None], times_s: Sequence[float], full: set[int] | None, unit: str) -> str:
    """Draw a dot for each value that is known over time; dots whose places are not in `full` are pale."""
    across = Scale(0.0, (times_s[-1] - times_s[0]) or 1.0, _LEFT, WIDTH - 20)
    up = Scale(0.0, (max(value_ms or 0.0 for value_ms in values_ms) or 1.0) * 1.1, _HEIGHT, 18)
    parts = [axis(across, _HEIGHT, "s of the recording"), text(0, 12, unit, "middle", "tiny")]
    for tick in up.ticks(4):
        parts.append(f'<path d="M{_LEFT} {up(tick):.1f}H{WIDTH - 20}" class="grid"/>')
        parts.append(text(_LEFT - 8, up(tick), f"{tick:g}", "middle", "tiny", "end"))
    for place, (value_ms, time_s) in enumerate(zip(values_ms, times_s, strict=True)):
        if value_ms is None:
            continue
        kind = "disc" if full is None or place in full else "dot"
        x, y = across(time_s - times_s[0]), up(value_ms)
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="{kind}"/>'
        parts.append(f"<g><title>{milliseconds(value_ms)}</title>{shape}</g>")
    return svg(_HEIGHT + AXIS, parts, unit)
