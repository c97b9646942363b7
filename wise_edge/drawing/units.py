"""Quantities as people read them: three significant figures or so, and a unit of a fitting size."""

from __future__ import annotations


def milliseconds(value: float) -> str:
    """Format a duration in ms: `0.4 ms`, `38 ms`, `2.31 s`, `12.3 s`, `123 s`."""
    if abs(value) < 999.5:  # 999.5 would be 1000 ms
        return f"{value:.0f} ms" if abs(value) >= 9.95 else f"{value:.1f} ms"
    return _three(value / 1000, "s")


def joules(value: float) -> str:
    """Format an energy in J: `0.42 mJ`, `45.6 mJ`, `1.23 J`, `12.3 J`."""
    return _three(value, "J") if abs(value) >= 0.9995 else f"{value * 1e3:.3g} mJ"  # 999.5 mJ would be 1e+03 mJ


def size(value: float | None) -> str:
    """Format a size in bytes: `512 B`, `12 kB`, `9.8 MB`, `123 MB`, `1.2 GB`; "-" if it is unknown."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if unit != "B" and value < 9.95 else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.0f} GB" if value >= 99.95 else f"{value:.1f} GB"


def duration(seconds: float) -> str:
    """Format a duration of seconds to days in its two largest units: `12 s`, `3 min`, `3 h 5 min`, `1 d 1 h`."""
    if seconds < 59.5:  # 59.5 would be 60 s
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def number(value: int) -> str:
    """Format how many weights there are: `0.3 million`, `93.7 million`, `3.75 billion`."""
    return f"{value / 1e9:.2f} billion" if value >= 999_950_000 else f"{value / 1e6:.1f} million"


def _three(value: float, unit: str) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"
