"""Reads the log of a wall meter: the power of the complete machine, written by another program during a profile.

The first line names the columns. One is the time (`time`, `timestamp`, `datetime`, `unix` or `unix_s`), in seconds
since 1970 or ISO 8601 (local time if it has no zone). One is the power (`power_w`, `power`, `watts`, `w`, or `power_mw`
and `mw`). Other columns are ignored.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerTrace

_TIMES = ("time", "timestamp", "datetime", "unix", "unix_s")
_POWERS = {"power_w": 1.0, "power": 1.0, "watts": 1.0, "w": 1.0, "power_mw": 1e-3, "mw": 1e-3}
"""Factor that converts the values of each column to W."""


def read_wall_meter(file: Path, shift_s: float = 0.0, untrusted: str | None = None) -> PowerTrace:
    """Read a log.

    Args:
        file: CSV, as described above.
        shift_s: added to the times, to convert them to another clock.
        untrusted: why it cannot provide energies; None if it can.

    Returns:
        Its readings; invalid and negative ones are counted in `dropped`.

    Raises:
        UsageError: the file cannot be read, lacks a column, or has an invalid time or times that do not increase.
    """
    times_s: list[float] = []
    last_s = -math.inf
    values_w: list[float] = []
    dropped = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            time_name, power_name = _find(file, rows.fieldnames or ())
            for row in rows:
                watts = _watts(row[power_name], _POWERS[power_name.strip().lower()])
                if watts is None:
                    dropped += 1
                    continue
                at_s = _seconds(file, rows.line_num, row[time_name])
                if at_s <= last_s:
                    raise UsageError(
                        f"{file}, line {rows.line_num}: the times do not increase; sort the log, and "
                        "log fractions of a second"
                    )
                last_s = at_s
                times_s.append(at_s + shift_s)
                values_w.append(watts)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; pass the log of a wall meter to --power") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} is not a CSV file: {error}") from error
    interval_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else None
    name = f"wall meter ({file.name})"
    source = PowerSource(name, "power", ("machine",), (0,), untrusted, interval_s, _unreadable, (None,))
    return PowerTrace(source, np.array(times_s), np.array(values_w)[:, None], dropped)


def _find(file: Path, names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the time and power columns as written."""
    plain = {name.strip().lower(): name for name in names if name}
    found = [next((plain[name] for name in known if name in plain), None) for known in (_TIMES, _POWERS)]
    if found[0] is None or found[1] is None:
        raise UsageError(
            f"{file} has the columns {', '.join(plain) or '(none)'}; its first line must name a "
            f"time ({', '.join(_TIMES)}) and a power ({', '.join(_POWERS)})"
        )
    return found[0], found[1]


def _watts(text: str | None, unit: float) -> float | None:
    try:
        watts = float(text or "") * unit
    except ValueError:
        return None
    return watts if math.isfinite(watts) and watts >= 0 else None


def _seconds(file: Path, line: int, text: str | None) -> float:
    """Return seconds since 1970."""
    written = (text or "").strip()
    try:
        found = float(written)
    except ValueError:
        try:
            found = datetime.fromisoformat(_plain_iso(written)).timestamp()
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{file}, line {line}: {written!r} is not a time; use seconds since 1970 or ISO 8601")
    return found


def _plain_iso(written: str) -> str:
    """Return an ISO 8601 time in the form that Python 3.10 accepts: no "Z", and six fractional digits."""
    zoned = written.removesuffix("Z") + ("+00:00" if written.endswith("Z") else "")
    return re.sub(r"[.,](\d+)", lambda part: f".{part[1][:6]:0<6}", zoned, count=1)


def _unreadable() -> tuple[float, ...]:
    raise RuntimeError("a log is read at once")
