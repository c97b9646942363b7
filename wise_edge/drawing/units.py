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


def _three(value: float, unit: str) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"
