"""Locks on what is written: held once, named, released by the kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

from wise_edge.errors import UsageError
from wise_edge.files import locks
from wise_edge.files.locks import holding

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
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("wise_edge.files.locks.fcntl.flock", unsupported)
    with holding(tmp_path):
        pass
