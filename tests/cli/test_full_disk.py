"""A disk that fills up while a result is written costs the file, not the result."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profile_documents import make_document
from wise_edge.cli import profile
from wise_edge.cli.main import main
from wise_edge.errors import WiseEdgeError
from wise_edge.images import save_png


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a disk that is full."""
    folder, sync = tmp_path / "disk", os.fsync
    folder.mkdir()

    def fail(descriptor: int) -> None:
        if str(folder) in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    return folder


def test_a_query_shows_its_result_and_writes_what_can_be_written(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_png(np.full((112, 112, 3), 200, np.uint8), tmp_path / "image.png")
    files = ["--mask", str(disk / "mask.png"), "--overlay", str(tmp_path / "overlay.png")]
    assert main(["run", str(tmp_path / "image.png"), "the red ring", *files, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["query"] == "the red ring"
    assert (
        err.splitlines()[-1]
        == f"error: cannot write {disk}/mask.png: No space left on device; free some space and run it again"
    )
    assert (tmp_path / "overlay.png").exists()
    assert not list(disk.iterdir())


def test_a_report_that_cannot_be_written_is_kept_among_the_temporary_files(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    measured: Any = make_document()
    with pytest.raises(WiseEdgeError, match=r"a\.json: No space left .*; the report is \S+/a\.json$") as caught:
        profile._write(measured, [disk / "a.json", tmp_path / "b.json"], force=False)
    kept = Path(str(caught.value).rpartition(" ")[2])
    assert json.loads(kept.read_text()) == json.loads((tmp_path / "b.json").read_text()) == measured
    assert caught.value.exit_code == 1

    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with pytest.raises(WiseEdgeError, match=r"run it again$"):
        profile._write(measured, [disk / "c.json"], force=False)
    assert not list(disk.iterdir())
