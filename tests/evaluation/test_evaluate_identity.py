"""One writer for a file of records, and what must be the same for it to be resumed, joined or compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fake_session
from dataset_files import mask_rows, write_parquet, write_reasonseg, write_refcoco
from locations import SUPPORT
from wise_edge.bundle.store import resolve_bundle
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError
from wise_edge.evaluation.record_log import read_log
from wise_edge.files.locks import claiming
from wise_edge.runtimes.session import Session

COMMAND = ["evaluate", "--limit", "4", "--out", "r.jsonl"]
HELD = """
import sys
import fake_session, pytest
from wise_edge.cli.main import main

def write(image, query, variant):
    print("asked", flush=True)
    sys.stdin.readline()
    return fake_session.write_canned(image, query, variant)

fake_session.install(pytest.MonkeyPatch(), write)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fake_session.Opened:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # restored at the end, whatever a test sets
        monkeypatch.delenv(name)
    return fake_session.install(monkeypatch)


def _cut(file: Path, lines: int) -> None:
    """Leave what a run that was killed after some lines leaves."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))


def _edit(file: Path, change: Callable[[list[Any]], None]) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("more", [[], ["--resume"], ["--force"]])
def test_the_second_of_two_is_refused_before_its_models_are_loaded(
    more: list[str], opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", "")))}
    with subprocess.Popen(
        [sys.executable, "-c", HELD, *COMMAND],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "asked\n"
        line = f"error: r.jsonl is being written by another process ({first.pid}); wait until it has ended, or choose "
        assert _refused([*COMMAND, *more], capsys).startswith(line)
        first.communicate("\n" * 4)
    assert first.returncode == 0
    assert opened.calls == []
    _, records = read_log(Path("r.jsonl"))
    assert [record.index for record in records] == [0, 1, 2, 3]


def test_what_another_process_finished_just_before_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish_first(path: Path, **_: Any) -> Path:
        Path("r.jsonl").write_text("records\n")  # after the path was checked, before it is locked
        return path

    monkeypatch.setattr("wise_edge.files.targets.check_target", finish_first)
    assert "r.jsonl exists; use --resume" in _refused(COMMAND, capsys)
    assert Path("r.jsonl").read_text() == "records\n"


def test_a_run_that_fails_to_start_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        assert Path("r.jsonl").exists()
        raise DeviceError("no GPU")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "from_bundle", fail)
        assert main(COMMAND) == 4
    assert list(Path().iterdir()) == []
    Path("r.jsonl").touch()  # what SIGKILL leaves before the first record is of no run
    assert main(COMMAND) == 0
    assert len(read_log(Path("r.jsonl"))[1]) == 4


def test_a_share_that_another_process_evaluates_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with claiming(Path("r.rank1.jsonl")):
        assert "r.rank1.jsonl is being written" in _refused([*COMMAND, "--shard", "1/2", "--force"], capsys)
    assert main([*COMMAND, "--shard", "0/2"]) == 0
    with claiming(Path("r.jsonl")):  # by an evaluation in one process
        assert "r.jsonl is being written" in _refused([*COMMAND, "--shard", "1/2"], capsys)
    assert not Path("r.jsonl").exists()
    assert main([*COMMAND, "--shard", "1/2", "--resume"]) == 0
    assert len(read_log(Path("r.jsonl"))[1]) == 4


def test_the_second_of_two_launches_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with claiming(Path("r.jsonl")):  # as the first process of another launch, whose share is complete
        assert "r.jsonl is being written" in _refused([*COMMAND, "--force"], capsys)


def _double(lines: list[Any]) -> None:
    lines.insert(3, lines[2])


def _double_under_another_id(lines: list[Any]) -> None:
    lines[3] = lines[2] | {"id": "test-2"}


def _double_under_another_index(lines: list[Any]) -> None:
    lines[3] = lines[2] | {"index": 2}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_double, "r.jsonl, line 4, repeats the index 1 of line 3; delete one of the two"),
        (_double_under_another_id, "r.jsonl, line 4, repeats the index 1 of line 3"),
        (_double_under_another_index, "r.jsonl, line 4, repeats the id test-1 of line 3"),
    ],
)
@pytest.mark.parametrize("shard", [[], ["--shard", "0/1"]])
def test_a_sample_that_is_listed_twice_is_refused(
    change: Callable[[list[Any]], None], word: str, shard: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND) == 0
    shutil.copy("r.jsonl", "whole.jsonl")
    _edit(Path("r.jsonl"), change)
    assert word in _refused([*COMMAND, *shard, "--resume"], capsys)
    assert word in _refused(["evaluate", "compare", "whole.jsonl", "r.jsonl"], capsys)
    assert word in _refused(["evaluate", "compare", "r.jsonl", "whole.jsonl"], capsys)


def test_a_sample_that_two_shares_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--shard", "0/2"]) == 0
    _edit(Path("r.rank0.jsonl"), lambda lines: lines.append(lines[2] | {"index": 1, "id": "test-1"}))
    assert "r.rank0.jsonl, line 4, was not written by" in _refused([*COMMAND, "--shard", "1/2"], capsys)
    assert not Path("r.jsonl").exists()


def test_a_record_of_another_index_is_of_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    _cut(Path("r.jsonl"), 3)
    _edit(Path("r.jsonl"), lambda lines: lines[2].update(index=3))
    assert "sample test-1 is not in it" in _refused([*COMMAND, "--resume"], capsys)


def test_a_report_that_is_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--json"]) == 0
    Path("report.json").write_text(capsys.readouterr().out)
    assert "report.json is named twice" in _refused(["evaluate", "table", "report.json", "report.json"], capsys)


@pytest.mark.parametrize("line", [0, 2])
def test_a_newer_version_is_told_by_its_keys(line: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    _edit(Path("r.jsonl"), lambda lines: (lines[line].get("settings") or lines[line]).update(hue=3))
    word = f"r.jsonl, line {line + 1}, has 'hue', which this version does not know; read it with the newer wise-edge"
    assert word in _refused([*COMMAND, "--resume"], capsys)
    assert word in _refused(["evaluate", "compare", "r.jsonl", "r.jsonl"], capsys)


@pytest.mark.parametrize("content", ['{"id": "te', "\0" * 40, '{"iou": NaN}', "[" * 100_000, "9" * 5000])
def test_a_log_whose_middle_is_torn_is_named_with_its_line(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    lines = Path("r.jsonl").read_text().splitlines()
    Path("r.jsonl").write_text("\n".join([*lines[:2], content, *lines[3:]]) + "\n")
    word = "r.jsonl, line 3, was not written by 'wise-edge evaluate --out'; choose another file or delete this one"
    assert word in _refused([*COMMAND, "--resume"], capsys)


@pytest.mark.parametrize("value", [None, "one", -1, True, [], {}, 1.5])
def test_a_value_of_another_type_is_no_record(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    _edit(Path("r.jsonl"), lambda lines: lines[2].update(index=value))
    assert "r.jsonl, line 3, was not written by" in _refused([*COMMAND, "--resume"], capsys)


def test_a_log_of_an_earlier_version_is_not_continued_with_what_it_does_not_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(COMMAND) == 0
    shutil.copy("r.jsonl", "whole.jsonl")

    def forget(lines: list[Any]) -> None:
        del lines[0]["settings"]["data_sha256"], lines[0]["settings"]["version"]

    _edit(Path("r.jsonl"), forget)
    _cut(Path("r.jsonl"), 3)
    word = "r.jsonl does not say with which data_sha256, version it was made, since an earlier version wrote it; finish"
    assert word in _refused([*COMMAND, "--resume"], capsys)
    shutil.copy("whole.jsonl", "old.jsonl")
    _edit(Path("old.jsonl"), forget)
    assert main(["evaluate", "compare", "whole.jsonl", "old.jsonl"]) == 0
    assert "old.jsonl does not say which files its samples are of" in capsys.readouterr().err


def test_another_version_does_not_continue_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND) == 0
    _cut(Path("r.jsonl"), 3)
    monkeypatch.setattr("wise_edge.__version__", "99.0")
    assert "r.jsonl was made with other settings (version " in _refused([*COMMAND, "--resume"], capsys)


def test_another_budget_of_pixels_does_not_continue_a_log(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--pixels", "7056"]) == 0
    assert opened.calls[-1]["pixels"] == 7056
    assert "4 samples of scenes/test, variant wise-s, at most 7056 pixels\n" in capsys.readouterr().out
    assert read_log(Path("r.jsonl"))[0].pixels == 7056
    _cut(Path("r.jsonl"), 3)
    for other in ([], ["--pixels", "3136"]):
        assert "r.jsonl was made with other settings (pixels " in _refused([*COMMAND, *other, "--resume"], capsys)
    assert main([*COMMAND, "--pixels", "7056", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pixels"] == 7056


def test_a_log_of_an_earlier_version_has_no_budget_of_pixels() -> None:
    assert main(COMMAND) == 0
    _edit(Path("r.jsonl"), lambda lines: lines[0]["settings"].pop("pixels"))
    assert read_log(Path("r.jsonl"))[0].pixels is None


def test_another_bundle_of_the_same_name_does_not_continue_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(resolve_bundle(None), "bundle")
    command = [*COMMAND, "--bundle", "bundle"]
    assert main(command) == 0
    _cut(Path("r.jsonl"), 3)
    manifest = json.loads(Path("bundle/bundle.json").read_text())
    manifest["artifacts"][0]["sha256"] = "0" * 64
    Path("bundle/bundle.json").write_text(json.dumps(manifest))
    assert "r.jsonl was made with other settings (model_sha256" in _refused([*command, "--resume"], capsys)


def _write_table(folder: Path) -> None:
    folder.mkdir()
    write_parquet(folder / "test.parquet", mask_rows(3))


@pytest.mark.parametrize(
    ("dataset", "write", "changed"),
    [
        ("reasonseg", lambda folder: write_reasonseg(folder / "test", 3), "test/0.jpg"),
        ("reasonseg", lambda folder: write_reasonseg(folder / "test", 3), "test/1.json"),
        ("reasonseg", _write_table, "test.parquet"),
        ("refcoco", lambda folder: write_refcoco(folder, 3), "refcoco/instances.json"),
        ("refcoco", lambda folder: write_refcoco(folder, 3), "refcoco/refs(unc).p"),
        (
            "refcoco",
            lambda folder: write_refcoco(folder, 3),
            "images/mscoco/images/train2014/COCO_train2014_000000000001.jpg",
        ),
    ],
)
def test_other_data_of_the_same_name_does_not_continue_a_log(
    dataset: str, write: Callable[[Path], Any], changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("data"))
    command = ["evaluate", "--dataset", dataset, "--limit", "3", "--out", "r.jsonl", "--data"]
    assert main([*command, "data"]) == 0
    shutil.copy("r.jsonl", "before.jsonl")
    _cut(Path("r.jsonl"), 3)
    shutil.copytree("data", "moved")
    assert main([*command, "moved", "--resume"]) == 0  # the same data in another place

    _cut(Path("r.jsonl"), 3)
    with Path("moved", changed).open("ab") as file:
        file.write(b" ")  # which JSON, pickle and JPEG readers skip, as they would a changed pixel
    word = "r.jsonl was made with other settings (data_sha256"
    if changed.endswith(".parquet"):
        shutil.rmtree("moved")
        Path("moved").mkdir()
        write_parquet(Path("moved/test.parquet"), mask_rows(4)[1:])
    assert word in _refused([*command, "moved", "--resume"], capsys)
    assert main([*command[:-2], "other.jsonl", "--data", "moved"]) == 0
    assert "differ in data_sha256" in _refused(["evaluate", "compare", "before.jsonl", "other.jsonl"], capsys)
