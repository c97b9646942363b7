"""One reader of documents: what it bounds, and that everything else is read as it is."""

from __future__ import annotations

import gc
import json
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wise_edge.errors import UsageError
from wise_edge.files.documents import (
    MOST_DEPTH,
    check_values,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    read_yaml,
    to_json,
)

REFUSED = {
    "empty": (b"", "Expecting value"),
    "cut short": (b'{"a": [1, 2', "Expecting"),
    "a list": (b"[1]", "does not hold a JSON object"),
    "a number": (b"1", "does not hold a JSON object"),
    "two documents": (b"{}{}", "Extra data"),
    "NaN": (b'{"a": NaN}', "NaN is not a finite number"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not a finite number"),
    "overflow": (b'{"a": 1e400}', "1e400 is not a finite number"),
    "long float": (b'{"a": 0.' + b"1" * 100 + b"}", "of at most 64 characters"),
    "long integer": (b'{"a": ' + b"1" * 400 + b"}", "11111111111111111111… is not a finite number"),
    "longest integer": (b'{"a": ' + b"1" * 100_000 + b"}", "of at most 64 characters"),
    "repeated key": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is repeated"),
    "deep lists": (b'{"a": ' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", "nested more than 64 levels deep"),
    "deep objects": (b'{"a":' * 500 + b"1" + b"}" * 500, "nested more than 64 levels deep"),
    "too deep to parse": (b"[" * 1_000_000, "nested too deeply"),
    "half a character": (b'{"a": "\\uD83D"}', "half a character"),
    "half a character in a key": (b'{"\\udc00": 1}', "half a character"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8 text"),
    "UTF-16": (b"\xff\xfe{\0}\0", "is UTF-16, as PowerShell writes; save it as UTF-8"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_json_that_no_other_code_could_use_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_json(file, remedy="mend it")
    assert str(file) in str(refused.value)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(("; mend it", "; save it as UTF-8"))


def test_a_byte_order_mark_pairs_of_escapes_and_the_greatest_depth_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    deep = b"[" * (MOST_DEPTH - 1) + b"]" * (MOST_DEPTH - 1)
    file.write_bytes(
        b'\xef\xbb\xbf{"a": "\\ud83d\\ude00\\u0000", "n": 1000000000000000019884624838656, "d": ' + deep + b"}"
    )
    found = read_json(file)
    assert (found["a"], found["n"]) == ("😀\0", int(1e30))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_everything_else_is_read_as_it_was_written(data: dict[str, object]) -> None:
    assert parse_json(to_json(data), "x") == data
    assert parse_json(json.dumps(data, ensure_ascii=False).encode(), "x") == data


@given(st.binary(max_size=60) | st.text('{}[]":,\\du8 1e9-NaInfity', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for parse in (parse_json, lambda text, where: parse_yaml(text.decode(), where)):
        try:
            found = parse(content, "x")
        except (UsageError, UnicodeDecodeError):
            continue
        to_json(found).encode()  # what is read can be written


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    with pytest.raises(UsageError, match="has more than 4,000,000 bytes, which no such file needs"):
        read_json(file)


def test_a_pipe_is_read_up_to_a_bound() -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as stream:
            while stream.write(b" " * 65_536):
                pass

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with pytest.raises(UsageError, match="has more than 16,000,000 bytes"):
            read_bytes(Path(f"/dev/fd/{reading}"), 1_000_000_000)
    finally:
        os.close(reading)
        feeder.join()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "Is a directory"), ("none", "No such file"), ("n" * 5000, "too long"), ("a\0b", "null")],
    ids=["a folder", "nothing", "a long name", "NUL"],
)
def test_a_path_that_cannot_be_read_is_told(tmp_path: Path, name: str, reason: str) -> None:
    for read in (read_json, read_yaml, lambda file: list(read_lines(file)), lambda file: read_text(file, 10)):
        with pytest.raises(UsageError, match=f"cannot read .*{reason}.*; copy or write it again") as refused:
            read(tmp_path / name)
        assert len(str(refused.value)) < 400


def test_lines_are_read_one_by_one_and_a_long_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n\n{"a": 2}')
    assert list(read_lines(file)) == [b'{"a": 1}\n', b"\n", b'{"a": 2}']
    file.write_bytes(b'{"a": 1}\n' + b" " * 100)
    lines = read_lines(file, 50)
    next(lines)
    with pytest.raises(UsageError, match=r"a\.jsonl, line 2, is longer than 50 bytes"):
        next(lines)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "while parsing"),
        ("a: 1\na: 2", "the key 'a' is repeated"),
        ("a: .nan", "nan is not a finite number"),
        ("a: .inf", "inf is not a finite number"),
        ("a: 1.0e+400", "inf is not a finite number"),
        ("a: 2026-11-30", "a value is a date; put text into quotes"),
        ("a: !!set {b}", "a value is a set"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: !!bool x", "'x'"),
        ("a: !!int ''", "index out of range"),
        ("a: " + "1" * 5000, "is not YAML"),
        ("a: 0x" + "f" * 5000, "more than 64 digits"),
        ('a: "\\ud800"', "half a character"),
        ("a: &a [*a]", "nested more than 64 levels deep"),
        ("[" * 10_000, "nested too deeply"),
        (LAUGHS, "more than 1,000,000 values"),
        ("a: \0", "special characters are not allowed"),
    ],
)
def test_yaml_is_bounded_too(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=r"^recipe (is not YAML|cannot be used)") as refused:
        parse_yaml(text, "recipe", "mend it")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_yaml_keeps_anchors_merges_and_plain_values() -> None:
    text = "base: &base {lr: 1.0e-3, on: yes}\nmore: {<<: *base, lr: 2}\nlast: {<<: *base}\nname: 'é'"
    assert parse_yaml(text, "recipe") == {
        "base": {"lr": 1e-3, True: True},
        "more": {"lr": 2, True: True},
        "last": {"lr": 1e-3, True: True},
        "name": "é",
    }


def test_values_of_another_reader_are_held_to_the_same_rules() -> None:
    check_values({"a": [1, (2.0, "x")], "b": None})
    check_values({"files": [{"path": f"{number}.mcap", "message_count": 5} for number in range(50_000)]})
    many = [0] * 1000
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        check_values([many] * 1001)
    for wrong in ({"a": object()}, [float("nan")], ["\ud800"], [10**100]):
        with pytest.raises(ValueError):
            check_values(wrong)


def test_json_is_written_only_if_every_reader_takes_it() -> None:
    assert to_json({"a": None, "b": 1.5}) == '{"a": null, "b": 1.5}'
    with pytest.raises(ValueError):
        to_json({"a": float("nan")})


def test_the_collector_runs_again_after_a_document_that_was_refused() -> None:
    assert gc.isenabled()
    with pytest.raises(UsageError):
        parse_json("{", "x")
    assert gc.isenabled()
