"""Reads the log of a wall meter: the power of the complete machine, written by another program during a profile.

The log is CSV, separated by commas, semicolons or tabs, in UTF-8 or UTF-16. Its first line names the columns; one is
the time and one the power, the others are ignored:

- Time: seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size, or ISO 8601 (local time
  if it has no zone, unless the column's name ends in UTC; year, month and day may be separated by slashes).
- Power: W, or what the column's name or the value says (`power_mw`, `Power (kW)`, "12.3 W"), with a decimal point or
  comma. nvidia-smi's `power.draw` is read too, as the power of the GPU alone.

What could be read in two ways (day first, "1,234") is refused, with the column and what is expected.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_bytes
from wise_edge.power.sources import PowerSource
from wise_edge.power.trace import PowerTrace

_TIMES = ("time", "timestamp", "datetime", "date_time", "unix", "unix_time", "epoch", "ts")
_GPU_POWERS = ("power_draw", "power_draw_instant", "power_draw_average")
_POWERS = ("power", "active_power", "real_power", "total_power", "apower", "p", "", *_GPU_POWERS)
"""Names of columns without their unit, as `_plain` returns them; the first that a log has is read."""
_UNITS_W = {"w": 1.0, "watt": 1.0, "watts": 1.0, "uw": 1e-6, "mw": 1e-3, "kw": 1e3}
_UNIT = "|".join(sorted(_UNITS_W, key=len, reverse=True))
_SINCE_1970_S = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (0.0, 1.0))
"""Least value since 1970 in each unit of time, and the unit in s: 1e11 is March 1973 in ms, and the year 5138 in s."""
_EARLIEST_S = 1e8
_LONGEST_TIME = 64
"""Characters of a time; the patterns that read it take time in the square of its length."""
_MOST_BYTES = 256_000_000
_OTHER_TIME_S = 600.0
"""Distance between log and profile from which on they are of other times: a logger may hold back minutes of readings,
and zones differ by a quarter of an hour or more."""


def check_wall_meter(file: Path, now_s: float) -> None:
    """Check, before a profile, that a log is being written and can be read.

    Args:
        file: as for `read_wall_meter`; it may have no readings yet.
        now_s: seconds since 1970.

    Raises:
        UsageError: the log cannot be read, or its last reading is of another time.
    """
    _, times_s, _, _ = _read(file)
    if (other := _other_time(times_s[-1:], now_s, now_s)) is not None:
        raise UsageError(f"{file}: {other}; start the logger before the profile, and log times with their zone")


def read_wall_meter(
    file: Path, shift_s: float = 0.0, untrusted: str | None = None, during: tuple[float, float] | None = None
) -> PowerTrace:
    """Read a log.

    Args:
        file: CSV, as described above. A last line without a line break is left out: it may still be written.
        shift_s: added to the times, to convert them to another clock.
        untrusted: why it cannot provide energies; None if it can.
        during: start and end of the profile, seconds since 1970; a log of another time provides no energies.

    Returns:
        Its readings; missing and negative ones are counted in `dropped`.

    Raises:
        UsageError: the file cannot be read, lacks a column or any reading, or has an unknown notation or times that do
            not increase.
    """
    columns, times_s, values_w, dropped = _read(file)
    if not times_s:
        raise UsageError(f"{file} has no readings; the column '{columns.power_name}' must have powers in W")
    if during is not None:
        untrusted = untrusted or _other_time(times_s, *during)
    source = PowerSource(
        name=f"wall meter ({file.name})",
        kind="power",
        parts=("GPU",) if columns.of_gpu else ("machine",),
        total=(0,),
        reason=untrusted,
        interval_s=float(np.median(np.diff(times_s))) if len(times_s) > 1 else None,
        read=_unreadable,
        wrap_j=(None,),
        scope="gpu" if columns.of_gpu else "machine",
    )
    return PowerTrace(source, np.array(times_s) + shift_s, np.array(values_w)[:, None], dropped)


@dataclass(frozen=True)
class _Columns:
    """Where and how a log writes times and powers.

    Attributes:
        time: index of the time's column.
        power: index of the power's column.
        time_name: the time's column as written.
        power_name: the power's column as written.
        unit_w: unit of a power that does not name one, in W.
        utc: whether times without a zone are UTC.
        comma: whether a comma in a number can only be a decimal comma.
        of_gpu: whether the power is that of a GPU.
    """

    time: int
    power: int
    time_name: str
    power_name: str
    unit_w: float
    utc: bool
    comma: bool
    of_gpu: bool

    @classmethod
    def find(cls, names: Sequence[str], comma: bool) -> _Columns:
        """Find the columns by their names; raises `UsageError` if one is missing."""
        plain = [_plain(name) for name in names]
        times = [re.sub(r"_(s|ms|us|ns|utc|local)$", "", name) for name in plain]
        powers = [re.fullmatch(rf"(.*?)_?({_UNIT})?", name) for name in plain]
        bases = [match[1] if match and (match[1] or match[2]) else None for match in powers]
        time = next((times.index(name) for name in _TIMES if name in times), None)
        power = next((bases.index(name) for name in _POWERS if name in bases), None)
        if time is None or power is None:
            counter = next((name for name, short in zip(names, plain, strict=True) if _is_energy(short)), None)
            energy = "" if counter is None else f"; '{counter}' is an energy, which is too coarse: log the power"
            raise UsageError(
                f"has the columns {', '.join(filter(None, names))[:200] or '(none)'}; its first line must name a time "
                f"({', '.join(_TIMES)}) and a power (power_w, power_mw, power_kw, power, watts){energy}"
            )
        match = powers[power]
        unit = match[2] if match else None
        of_gpu = bases[power] in _GPU_POWERS
        utc = plain[time].endswith("_utc")
        return cls(time, power, names[time], names[power], _UNITS_W[unit or "w"], utc, comma, of_gpu)

    def watts(self, written: str) -> float | None:
        """Return a power in W; None for a missing or negative one."""
        match = re.fullmatch(rf"([-+]?[\d.,]+(?:e[-+]?\d+)?)\s*({_UNIT})?", written.strip().lower().replace("µ", "u"))
        if match is None and not re.search(r"\d", written):
            return None  # "-", "nan", "[N/A]", "unavailable"
        value = None if match is None else self._number(match[1])
        if match is None or value is None:
            raise UsageError(
                f"column '{self.power_name}': '{written[:_LONGEST_TIME]}' is not a power; write it in W, like 12.3"
            )
        watts = value * (_UNITS_W[match[2]] if match[2] else self.unit_w)
        return watts if math.isfinite(watts) and watts >= 0 else None

    def seconds(self, written: str) -> float:
        """Return seconds since 1970."""
        written = written.strip()
        value = self._number(written)
        if len(written) > _LONGEST_TIME:
            value = math.nan
        elif value is None:
            try:
                time = datetime.fromisoformat(_plain_iso(written))
                value = (time.replace(tzinfo=timezone.utc) if self.utc and time.tzinfo is None else time).timestamp()
            except (ValueError, OverflowError, OSError):  # the last of a time that the system's clock has not
                value = math.nan
        else:
            value *= next((unit for least, unit in _SINCE_1970_S if value >= least), 1.0)
        if not math.isfinite(value):
            raise UsageError(
                f"'{written[:_LONGEST_TIME]}' is not a time; column '{self.time_name}' must have seconds or "
                "milliseconds since 1970, or ISO 8601 (2026-01-31 10:00:00.5)"
            )
        return value

    def _number(self, written: str) -> float | None:
        """Return a number; None if it is none, or if its comma may separate thousands."""
        if not self.comma and re.fullmatch(r"[-+]?\d{1,3},\d{3}", written):
            return None
        try:
            return float(written if "." in written else written.replace(",", "."))
        except ValueError:
            return None


def _read(file: Path) -> tuple[_Columns, list[float], list[float], int]:
    """Return the columns, times in s since 1970, powers in W, and how many were missing."""
    times_s: list[float] = []
    values_w: list[float] = []
    dropped = 0
    rows = _rows(read_bytes(file, _MOST_BYTES, "pass the log of a wall meter to --power"))
    try:
        _, names, delimiter = next(rows, (1, [], ","))
        columns = _Columns.find(names, comma=delimiter == ";")
    except UsageError as error:
        raise UsageError(f"{file} {error}") from error
    for line, row, _ in rows:
        try:
            if any(row[len(names) :]):
                raise UsageError("more values than columns; a decimal comma needs columns separated by ';' or tabs")
            row = [*row, *[""] * (len(names) - len(row))]
            if (watts := columns.watts(row[columns.power])) is None:
                dropped += 1
                continue
            at_s = columns.seconds(row[columns.time])
            if times_s and at_s <= times_s[-1]:
                raise UsageError("the times do not increase; sort the log, and log fractions of a second")
        except UsageError as error:
            raise UsageError(f"{file}, line {line}: {error}") from error
        times_s.append(at_s)
        values_w.append(watts)
    return columns, times_s, values_w, dropped


def _rows(data: bytes) -> Iterator[tuple[int, list[str], str]]:
    """Yield number, values and delimiter of each line that ends and is not empty."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
        first = text.lstrip().split("\n", 1)[0]
        delimiter = max(";\t,", key=first.count)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        for row in rows:
            if any(row):
                yield rows.line_num, row, delimiter
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"is not a CSV file: {error}") from error


def _plain(name: str) -> str:
    """Return a column's name in lower case, with underscores for everything else: "Power [mW]" is power_mw."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("µ", "u")).strip("_")


def _is_energy(plain: str) -> bool:
    return plain.startswith("energy") or re.search(r"(^|_)([km]?wh|k?j|joules?)$", plain) is not None


def _other_time(times_s: Sequence[float], start_s: float, end_s: float) -> str | None:
    """Return how far a log's readings are from a profile; None if they may be of the same time."""
    if not times_s or (times_s[0] < end_s + _OTHER_TIME_S and times_s[-1] > start_s - _OTHER_TIME_S):
        return None
    if times_s[-1] < _EARLIEST_S:
        return "its times count from a start of their own, not from 1970"
    early = times_s[-1] < start_s
    apart_s = start_s - times_s[-1] if early else times_s[0] - end_s
    return f"its readings are {apart_s / 3600:.1f} hours too {'early' if early else 'late'} for the profile"


def _plain_iso(written: str) -> str:
    """Return an ISO 8601 time as Python 3.10 accepts it: hyphens, six fractional digits, a zone with minutes."""
    date = re.sub(r"^(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3", written)
    zoned = re.sub(
        r"(:.*?)\s*(?:Z|UTC|([-+]\d\d):?(\d\d)?)$", lambda zone: f"{zone[1]}{zone[2] or '+00'}:{zone[3] or '00'}", date
    )
    return re.sub(r"[.,](\d+)", lambda part: f".{part[1][:6]:0<6}", zoned, count=1)


def _unreadable() -> tuple[float, ...]:
    raise RuntimeError("a log is read at once")
