"""Locks on what is written: held once, named, released by the kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

from damage import take_away_locks
from wise_edge.errors import UsageError
from wise_edge.files import locks
from wise_edge.files.locks import claiming, holding

HOLD = (
    "import pathlib, sys, time; from wise_edge.files.locks import holding\n"
    "with holding(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_is_held_by_one_process_until_it_is_killed(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    place.touch() if kind == "file" else place.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        line = rf"{place} is being written by another process \({other.pid}\)"
        with pytest.raises(UsageError, match=line), holding(place):
            pass
        other.kill()
    with holding(place):
        pass


def test_a_place_that_was_replaced_meanwhile_is_locked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, fresh = tmp_path / "place", tmp_path / "fresh"
    place.touch()
    fresh.touch()
    flock, calls = locks.fcntl.flock, []

    def replace_first(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            fresh.replace(place)
        flock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", replace_first)
    with holding(place):
        assert len(calls) == 2
        with pytest.raises(UsageError, match="another process"), holding(place):
            pass


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away_locks(monkeypatch)
    with holding(tmp_path) as held, holding(tmp_path) as held_twice:
        assert not held and not held_twice


def test_a_claimed_file_is_made_held_and_removed_if_nothing_was_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with claiming(file):
        assert file.read_bytes() == b""
        with pytest.raises(UsageError, match=rf"{file} is being written by another process"), claiming(file):
            pass
        assert file.exists()  # the refused one removes nothing
    assert not file.exists()
    with claiming(file):
        file.write_text("kept")
    with claiming(file):
        pass
    assert file.read_text() == "kept"


def test_a_link_to_a_file_that_is_yet_to_be_made_stays(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    with claiming(link), pytest.raises(UsageError, match="another process"), claiming(file):
        pass
    assert link.is_symlink()
    assert not file.exists()


def test_what_replaced_a_claimed_file_is_not_removed(tmp_path: Path) -> None:
    file, fresh = tmp_path / "log", tmp_path / "fresh"
    with claiming(file):
        fresh.touch()
        fresh.replace(file)
    assert file.exists()


def test_a_file_that_its_holder_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, flock, calls = tmp_path / "log", locks.fcntl.flock, []

    def remove_first(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            file.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", remove_first)
    with claiming(file):
        assert len(calls) == 2
        with pytest.raises(UsageError, match="another process"), claiming(file):
            pass


def test_a_file_that_cannot_be_claimed_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot write .*: No such file or directory"),
        claiming(tmp_path / "no" / "log"),
    ):
        pass
