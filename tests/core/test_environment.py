"""Numbers of the environment are read in one place: what is no number, or contradicts another, is one line."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.evaluation.shards import choose_gpu
from wise_edge.files.cache import cache_folder
from wise_edge.files.environment import Launch, read_int, read_launch

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "launch"),
    [
        ({}, Launch(0, 1, 0)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Launch(0, 1, 0)),
        ({"WORLD_SIZE": "8", "RANK": "7", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}, Launch(7, 8, 3)),
        ({"WORLD_SIZE": " 2\n", "RANK": "01"}, Launch(1, 2, 0)),
        ({"RANK": "5"}, Launch(0, 1, 0)),  # of a cluster's own, without a number of processes
    ],
)
def test_a_launch_is_read(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], launch: Launch) -> None:
    set_all(monkeypatch, variables)
    assert read_launch() == launch


BAD_LAUNCHES = [
    {"WORLD_SIZE": "abc"},
    {"WORLD_SIZE": ""},
    {"WORLD_SIZE": "0"},
    {"WORLD_SIZE": "-2"},
    {"WORLD_SIZE": "2.0"},
    {"WORLD_SIZE": "²"},
    {"WORLD_SIZE": "9" * 5000},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2", "RANK": "9"},
    {"WORLD_SIZE": "2", "RANK": "2"},
    {"WORLD_SIZE": "2", "RANK": "-1"},
    {"WORLD_SIZE": "2", "RANK": "x"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "x"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "-1"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "2"},
    {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "2"},
    {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"},
]


@pytest.mark.parametrize("variables", BAD_LAUNCHES, ids=lambda variables: "-".join(map(str, variables.values()))[:20])
def test_a_launch_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    set_all(monkeypatch, variables)
    assert main(["evaluate", "--limit", "1", "--out", str(tmp_path / "records.jsonl")]) == UsageError.exit_code
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), len(err) < 200) == ("", 1, True)
    assert any(err.startswith(f"error: {name} is ") for name in variables)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["", "yesterday", "-1", "1e9", "253402300800", "9" * 5000, "NaN", "0x10", "1_000"])
def test_a_number_out_of_its_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(UsageError, match=r"SOURCE_DATE_EPOCH is .* from 0 to 253402300799: seconds") as refused:
        read_int("SOURCE_DATE_EPOCH", 0, 253_402_300_799, "seconds since 1970")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("visible", "local_rank", "chosen"),
    [
        (None, "1", "1"),
        ("4,5", "1", "5"),
        ("4,5", "3", "5"),
        (" 4 , 5 ,", "1", "5"),
        ("GPU-8932f937,GPU-1d3f", "0", "GPU-8932f937"),
        ("", "1", ""),
        (",", "1", ""),
        ("-1", "1", "-1"),
    ],
)
def test_a_process_gets_one_of_the_visible_gpus(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, local_rank: str, chosen: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "remembered, so that it is put back")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    choose_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_caches_lie_where_the_user_wants_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("", "relative", "./here"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == tmp_path / ".cache" / "wise-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/wise-edge")


def test_a_user_without_a_home_has_caches_among_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib does without HOME and an entry in passwd

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() == Path(tempfile.gettempdir()) / f"wise-edge-cache-{os.getuid()}"
