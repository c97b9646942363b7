"""The log of a wall meter is read as loggers write it, or refused with the column and what is expected."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from wise_edge.errors import UsageError
from wise_edge.power.trace import PowerTrace
from wise_edge.profiling.wall_meter import _plain_iso, check_wall_meter, read_wall_meter

START_S = 1_700_000_000
LOCAL = datetime.fromtimestamp(START_S)  # in any zone 20 s past a minute


def read(folder: Path, text: str | bytes) -> PowerTrace:
    file = folder / "meter.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_wall_meter(file)


def log(row: str, header: str = "time,power_w", count: int = 10) -> str:
    """Write a line a second; `row` is formatted with the time in s and the number of the line."""
    return header + "\n" + "".join(row.format(s=START_S + number, n=number) + "\n" for number in range(count))


UNDERSTOOD = {
    "seconds": log("{s},10.5"),
    "milliseconds": log("{s}000,10.5"),
    "milliseconds by name": log("{s}000,10.5", "unix_ms,watts"),
    "microseconds": log("{s}000000,10.5"),
    "nanoseconds": log("{s}000000000,10.5"),
    "exponent": log("{s},1.05e1"),
    "semicolons": log("{s};10,5", "time;power_w"),
    "semicolons and decimal points": log("{s};10.5", "time;power_w"),
    "decimal commas with three digits": log("{s},0;10,500", "time;power_w"),
    "tabs": log("{s}\t10,5", "time\tpower_w"),
    "decimal comma in quotes": log('{s},"10,5"'),
    "unit in the name": log("{s},10.5", "Time,Power (W)"),
    "milliwatts": log("{s},10500", "Time (s),Power [mW]"),
    "kilowatts": log("{s},0.0105", "time,power_kw"),
    "active power": log("{s},230,10.5,11.9", "time,Voltage (V),Active Power (W),Apparent Power (VA)"),
    "unit in the value": log("{s},10.5 W", "time,power"),
    "another unit in the value": log("{s},10500mW"),
    "local time": log(f"{LOCAL:%Y-%m-%d %H:%M}:2{{n}},10.5"),
    "byte order mark": "\ufeff" + log("{s},10.5"),
    "Windows": log("{s},10.5").replace("\n", "\r\n"),
    "blank lines": "\n" + log("{s},10.5\n"),
    "UTC by name": log("2023-11-14 22:13:2{n},10.5", "Time (UTC),power_w"),
    "zone": log("2023-11-14T23:13:2{n}+0100,10.5"),
    "zone of hours": log("2023-11-14 22:13:2{n}+00,10.5"),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_log_is_read_as_it_was_meant(name: str, tmp_path: Path) -> None:
    trace = read(tmp_path, UNDERSTOOD[name])

    assert (len(trace.times_s), trace.dropped) == (10, 0)
    assert trace.energy(START_S, START_S + 9).energy_j == pytest.approx(9 * 10.5)
    assert (trace.source.parts, trace.source.scope) == (("machine",), "machine")


def test_utf_16_of_powershell_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, log("{s},10.5").encode("utf-16")).times_s) == 10


def test_nvidia_smi_measures_the_gpu_alone(tmp_path: Path) -> None:
    row = f"{LOCAL:%Y/%m/%d %H:%M}:{{n:02}}.123, 25.33 W, 300.00 W"
    text = log(row, "timestamp, power.draw [W], power.limit [W]") + log(row, "").replace("25.33 W", "[N/A]").strip()
    trace = read(tmp_path, text)

    assert (len(trace.times_s), trace.dropped) == (10, 9)  # the last line has no end
    assert trace.times_s[1] - trace.times_s[0] == 1.0
    assert trace.power(trace.times_s[0], trace.times_s[9])[1].tolist() == [25.33] * 10
    assert (trace.source.parts, trace.source.scope) == (("GPU",), "gpu")


def test_a_line_that_is_still_written_is_no_reading(tmp_path: Path) -> None:
    trace = read(tmp_path, log("{s},10.5") + f"{START_S + 10},1")
    assert trace.power(START_S, START_S + 20)[1].tolist() == [10.5] * 10


TIMES = "must have seconds or milliseconds since 1970, or ISO 8601 (2026-01-31 10:00:00.5)"
REFUSED = {
    log("31.12.2025 10:00:0{n},5"): f"line 2: '31.12.2025 10:00:00' is not a time; column 'time' {TIMES}",
    log("10:00:0{n},5", "Time,W"): f"line 2: '10:00:00' is not a time; column 'Time' {TIMES}",
    log("{s},10,5"): "line 2: more values than columns; a decimal comma needs columns separated by ';' or tabs",
    log('{s},"1,234"'): "line 2: column 'power_w': '1,234' is not a power; write it in W, like 12.3",
    log("{s};1.234,5", "time;power_w"): "line 2: column 'power_w': '1.234,5' is not a power",
    log("{s},12.3 VA"): "line 2: column 'power_w': '12.3 VA' is not a power; write it in W",
    log("{s},5", "time,energy_wh"): "; 'energy_wh' is an energy, which is too coarse: log the power",
    log("{s},5", "time,Total (kWh)"): "; 'Total (kWh)' is an energy",
    log("{s},5", "time,power_va"): "has the columns time, power_va; its first line must name a time (time, timestamp",
    "time,power_w\n": "has no readings; the column 'power_w' must have powers in W",
    log("{s},unavailable"): "has no readings; the column 'power_w'",
    "04-28-2025 08:28:01 RAM 3679/15388MB CPU [2%@729] VDD_IN 4890mW/4890mW\n": "its first line must name a time",
    log("{s},5").encode("utf-8").replace(b"power", b"p\xf6wer"): "is not a CSV file: 'utf-8' codec",
    "": "has the columns (none)",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_understood_is_refused_by_name(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "meter.csv"))
    assert REFUSED[text] in str(refused.value)


def test_before_a_profile_the_log_must_be_of_now(tmp_path: Path) -> None:
    file = tmp_path / "meter.csv"
    with pytest.raises(UsageError, match=r"cannot read .*: No such file or directory; pass the log of a wall meter"):
        check_wall_meter(file, START_S)
    file.write_text("time,power_w\n")
    check_wall_meter(file, START_S)  # the logger has just begun
    file.write_text(log("{s},10.5"))
    check_wall_meter(file, START_S + 300)  # it may hold back readings
    for now_s, words in ((START_S + 3600, "are 1.0 hours too early"), (START_S - 7200, "are 2.0 hours too late")):
        with pytest.raises(UsageError, match=f"its readings {words} for the profile; start the logger"):
            check_wall_meter(file, now_s)
    file.write_text("time,power_w\n0.5,10\n1.5,10\n")
    with pytest.raises(UsageError, match="its times count from a start of their own, not from 1970"):
        check_wall_meter(file, START_S)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("time,volts\n1,2\n", "has the columns time, volts; its first line must name a time (time, timestamp"),
        ("time,power_w\nnoon,2\n", "line 2: 'noon' is not a time"),
        ("time,power_w\n2,2\n1,2\n", "line 3: the times do not increase"),
        ("time,power_w\n1,-\n2,nan\n3,5\n3,5\n", "line 5: the times do not increase"),
        ("time,power_w\n1,2\nnan,2\n", "line 3: 'nan' is not a time"),
        ("time,power_w\ninf,2\n", "line 2: 'inf' is not a time"),
        (f"time,power_w\n:{' ' * 100_000}.,2\n", "line 2: ':                "),  # squares of its length in a pattern
        (f"time,power_w\n1,{'9' * 100_000}x\n", f"line 2: column 'power_w': '{'9' * 64}' is not a power"),
    ],
)
def test_a_log_that_cannot_be_read_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "meter.csv"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_wall_meter(file)
    assert line in str(refused.value)
    with pytest.raises(UsageError, match="log of a wall meter to --power"):
        read_wall_meter(tmp_path / "none.csv")


def test_times_may_be_iso_8601_and_power_milliwatts(tmp_path: Path) -> None:
    file = tmp_path / "meter.csv"
    file.write_text(
        "Timestamp, Power_mW\n2026-01-01T00:00:00Z,1000\n2026-01-01T00:00:01.5+00:00,2000\n2026-01-01T00:00:02Z,nan\n"
    )
    trace = read_wall_meter(file, shift_s=-1767225600.0)

    assert trace.times_s.tolist() == [0.0, 1.5]
    assert trace.power(0.0, 1.5)[1].tolist() == [1.0, 2.0]
    assert trace.dropped == 1


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("2026-01-01T00:00:01.5Z", "2026-01-01T00:00:01.500000+00:00"),
        ("2026-01-01 00:00:01.123456789", "2026-01-01 00:00:01.123456"),
        ("2026-01-01T00:00:01,25+01:00", "2026-01-01T00:00:01.250000+01:00"),
        ("2026-01-01T00:00:01Z", "2026-01-01T00:00:01+00:00"),
    ],
)
def test_python_3_10_takes_parts_of_a_second_in_six_digits_only(written: str, plain: str) -> None:
    assert _plain_iso(written) == plain
