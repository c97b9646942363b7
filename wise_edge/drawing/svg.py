"""Parts of charts: SVG without scripts; the page's style colors text and lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH = 960
"""Width of every chart, in units."""
AXIS = 34
"""Height of an axis below a chart, in units."""


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` onto units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        span = self.high - self.low
        return self.start + (value - self.low) / (span or 1.0) * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Return round values, about `count` of them."""
        raw = (self.high - self.low or 1.0) / count
        unit = 10.0 ** floor(log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
        first = ceil(self.low / step)
        return [number * step for number in range(first, floor(self.high / step + 1e-9) + 1)]


def axis(scale: Scale, height: float, unit: str) -> str:
    """Return vertical lines at round values, with their numbers below and the unit at the right."""
    parts = [
        f'<path d="M{scale(tick):.1f} 0V{height}" class="grid"/>'
        + text(scale(tick), height + 14, f"{tick:g}", "middle", "tiny", "middle")
        for tick in scale.ticks()
    ]
    return "".join([*parts, text(scale.end, height + 28, unit, "middle", "tiny", "end")])


def rect(x: float, y: float, width: float, height: float, color: str, title: str) -> str:
    """Return a filled rectangle with `title` as its tooltip."""
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{color}"/>'
    return f"<g><title>{escape(title)}</title>{shape}</g>"


def text(x: float, y: float, words: str, baseline: str, kind: str = "value", anchor: str = "start") -> str:
    """Return a line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" dominant-baseline="{baseline}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def svg(height: float, parts: Iterable[str], title: str) -> str:
    """Return a complete chart; `title` is its text alternative."""
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}"'
    return f"<svg {size}>{''.join(parts)}</svg>"
