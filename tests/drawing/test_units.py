"""Quantities as text."""

from __future__ import annotations

import pytest

from wise_edge.drawing.units import duration, joules, milliseconds, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0 ms"), (0.44, "0.4 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (999.4, "999 ms"), (999.6, "1.00 s"),
        (1234.0, "1.23 s"), (9994.0, "9.99 s"), (9996.0, "10.0 s"), (12345.6, "12.3 s"), (99_960.0, "100 s"),
        (123_456.0, "123 s"), (-25.0, "-25 ms"),
    ],
)  # fmt: skip
def test_milliseconds(value: float, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0.4 mJ"),
        (0.0456, "45.6 mJ"),
        (0.9996, "1.00 J"),
        (1.234, "1.23 J"),
        (12.34, "12.3 J"),
        (123.4, "123 J"),
    ],
)
def test_joules(value: float, text: str) -> None:
    assert joules(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"), (512, "512 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12 kB"), (999_600, "1.0 MB"),
        (9_800_000, "9.8 MB"), (123_000_000, "123 MB"), (999_700_000, "1.0 GB"), (7_400_000_000, "7.4 GB"),
        (123_000_000_000, "123 GB"), (1_234_000_000_000, "1,234 GB"),
    ],
)  # fmt: skip
def test_size(value: float | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"), (59, "59 s"), (59.7, "1 min"), (61, "1 min"), (3599, "1 h 0 min"), (3600 * 3 + 300, "3 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (300_000, "0.3 million"),
        (93_735_728, "93.7 million"),
        (999_960_000, "1.00 billion"),
        (3_754_622_976, "3.75 billion"),
    ],
)
def test_number(value: int, text: str) -> None:
    assert number(value) == text
