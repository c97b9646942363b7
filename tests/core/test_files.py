"""Files are written completely or not at all, and JSON is read or the problem is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.documents import read_json
from wise_edge.files.targets import check_folder_target
from wise_edge.files.writing import atomic_write, replacing_folder


def test_atomic_write_makes_an_ordinary_file(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    atomic_write(target, b"complete")
    assert target.read_bytes() == b"complete"
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert target.stat().st_mode == ordinary.stat().st_mode


def test_atomic_write_replaces_only_when_forced(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    with pytest.raises(UsageError, match="use --force"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    atomic_write(target, b"new", force=True)
    assert target.read_bytes() == b"new"


def test_atomic_write_names_the_problem(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        atomic_write(tmp_path, b"")
    with pytest.raises(UsageError, match="does not exist; create it first"):
        atomic_write(tmp_path / "missing" / "result.bin", b"")


def test_atomic_write_leaves_nothing_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wise_edge.files.writing.os.fsync", full_disk)
    with pytest.raises(
        WiseEdgeError, match=r"cannot write .*result\.bin: No space left on device; free some space"
    ) as caught:
        atomic_write(tmp_path / "result.bin", b"half")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_atomic_write_reports_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        atomic_write(tmp_path / "result.bin", b"")


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"k": "é"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"k": "é"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"k": "\xff"}', "is not UTF-8 text"),
        (b'{"k":' + b"[" * 200_000, "cannot be used: it is nested too deeply"),
        (b"[]", "does not hold a JSON object"),
        (b"null", "does not hold a JSON object"),
    ],
    ids=["empty", "cut", "not UTF-8", "nested", "list", "null"],
)
def test_invalid_json_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError, match=rf"a\.json {problem}"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*a\.json: No such file"):
        read_json(tmp_path / "a.json")


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    for target, message in (
        (tmp_path / "none" / "b", "does not exist; create it first"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(UsageError, match=message):
            check_folder_target(target, marker="bundle.json")
        with pytest.raises(UsageError, match=message), replacing_folder(target, marker="bundle.json"):
            pytest.fail("the work began")
    with pytest.raises(WiseEdgeError, match="cannot write /proc/b: No such file"), replacing_folder(Path("/proc/b")):
        pytest.fail("the work began")


@pytest.mark.parametrize("read", ["models", "models/policy", "models/../models/policy"])
def test_a_folder_is_not_replaced_by_what_is_made_of_it(tmp_path: Path, read: str) -> None:
    (tmp_path / "models" / "policy").mkdir(parents=True)
    (tmp_path / "models" / "bundle.json").touch()

    with pytest.raises(UsageError, match="would replace"):
        check_folder_target(tmp_path / "models", marker="bundle.json", force=True, keep=[None, tmp_path / read])
    check_folder_target(tmp_path / "models", marker="bundle.json", force=True, keep=[tmp_path / "models2"])
