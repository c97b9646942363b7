"""What a killed process left among the temporary files is removed, and what another one uses is not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wise_edge.files.temporary import scratch_in, temporary_folder

USE = """
import sys, tempfile, time
from wise_edge.files.temporary import temporary_folder
tempfile.tempdir = sys.argv[1]
with temporary_folder() as folder:
    (folder / "a").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


def test_folders_of_killed_processes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "wise-edge-notes").mkdir()
    with subprocess.Popen([sys.executable, "-c", USE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        with temporary_folder() as folder:
            assert folder.is_dir()
            assert (left / "a").exists()
        other.kill()
    assert left.exists()
    with temporary_folder() as folder:
        assert folder.is_dir()
        assert not left.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["wise-edge-notes"]


def test_libraries_make_their_temporary_files_where_they_are_swept(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with scratch_in(tmp_path), tempfile.TemporaryDirectory() as folder:
        assert Path(folder).parent == tmp_path
    assert tempfile.gettempdir() == before
