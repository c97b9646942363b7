"""One writer for a bag of results, and what must be the same for an unfinished run to be resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_session
from bag_writing import read_bag, write_bag
from wise_edge.bundle.store import resolve_bundle
from wise_edge.cli.main import main
from wise_edge.files.locks import claiming
from wise_edge.rle import mask_of_runs
from wise_edge.robot.bag_files import MASKS
from wise_edge.runtimes.session import Session


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fake_session.Opened:
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / "in", 5)
    return fake_session.install(monkeypatch)


@pytest.fixture
def killed(opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a run that ended after three of five images."""

    def write(image: np.ndarray, query: str, variant: str) -> str:
        if opened.policy.encoded == 4:
            raise KeyboardInterrupt
        return fake_session.write_canned(image, query, variant)

    opened.policy.write = write
    shutil.copytree(resolve_bundle(None), "bundle")
    assert main(command()) == 130
    assert len(Path("out.log").read_text().splitlines()) == 1 + 3
    opened.policy.write = fake_session.write_canned


def command(*more: str, bag: str = "in", bundle: str = "bundle") -> list[str]:
    return ["bag", bag, "--query", "the ring", "--out", "out", "--bundle", bundle, *more]


def _object(lines: list[Any]) -> Any:
    return lines[2]["objects"][0]


def _edit(change: Callable[[list[Any]], None]) -> None:
    lines = [json.loads(line) for line in Path("out.log").read_text().splitlines()]
    change(lines)
    Path("out.log").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    before = Path("out.log").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert Path("out.log").read_bytes() == before
    assert not Path("out").exists()
    return errors[0]


@pytest.mark.usefixtures("killed")
def test_the_same_run_is_resumed_from_other_places() -> None:
    shutil.copytree("bundle", "copy")
    Path("elsewhere").mkdir()
    shutil.copytree("in", "elsewhere/in")
    assert main(command("--resume", bag="elsewhere/in", bundle="copy")) == 0
    assert len(read_bag(Path("out"))[MASKS]) == 5
    assert not Path("out.log").exists()


@pytest.mark.usefixtures("killed")
def test_another_bundle_does_not_continue_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads(Path("bundle/bundle.json").read_text())
    manifest["artifacts"][0]["sha256"] = "0" * 64
    Path("bundle/bundle.json").write_text(json.dumps(manifest))
    assert "out.log was made with other settings (model_sha256 " in _refused(command("--resume"), capsys)


@pytest.mark.usefixtures("killed")
def test_another_bag_of_the_same_name_and_times_does_not_continue_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("in")
    write_bag(Path("in"), 5, draw=lambda number: np.full((20, 30, 3), 9 - number, np.uint8))
    assert "out.log was made with other settings (recording_sha256 " in _refused(command("--resume"), capsys)


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize(
    ("more", "word"), [(["--query", "the star"], "query the ring"), (["--variant", "verbose"], "variant wise-s")]
)
def test_other_options_do_not_continue_a_log(more: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"out.log was made with other settings ({word}" in _refused(command("--resume", *more), capsys)


@pytest.mark.usefixtures("killed")
def test_a_log_of_an_earlier_version_is_not_continued(capsys: pytest.CaptureFixture[str]) -> None:
    def forget(lines: list[Any]) -> None:
        for name in ("recording_sha256", "model_sha256", "version"):
            del lines[0]["settings"][name]
        for line in lines[1:]:
            del line["index"]

    _edit(forget)
    word = (
        "out.log does not say with which recording_sha256, model_sha256, version it was made, since an earlier version"
    )
    assert word in _refused(command("--resume"), capsys)


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda lines: lines.append(lines[3]), "out.log, line 5, repeats the index 2 of line 4; delete one of the two"),
        (lambda lines: lines.pop(2), "out.log has other images than in; delete the log to start over"),
        (lambda lines: lines[2].update(index=7), "out.log has other images than in; delete the log to start over"),
        (lambda lines: lines[2].update(hue=3), "out.log, line 3, has 'hue', which this version does not know"),
        (lambda lines: _object(lines)["mask"].update(counts="1"), "line 3, was not written by"),
        (lambda lines: _object(lines)["mask"].update(size=[10**9, 10**9]), "line 3, was not written by"),
        (lambda lines: _object(lines)["mask"].update(size=[30, 20]), "line 3, was not written by"),
        (lambda lines: _object(lines).update(mask=7), "line 3, was not written by"),
        (lambda lines: _object(lines).update(box=[1, 2, 3]), "line 3, was not written by"),
        (lambda lines: lines[2].update(bits="8"), "line 3, was not written by"),
        (lambda lines: lines[2].update(latency_ms={"decode": 1.0}), "line 3, was not written by"),
        (lambda lines: _object(lines).update(points=[[1]]), "line 3, was not written by"),
        (lambda lines: lines[2].update(objects=7), "line 3, was not written by"),
    ],
)
def test_a_damaged_log_is_not_continued(
    change: Callable[[list[Any]], None], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(change)
    assert word in _refused(command("--resume"), capsys)


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_the_second_of_two_is_refused_before_its_models_are_loaded(
    more: list[str], opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    opened.calls.clear()
    with claiming(Path("out.log")):
        assert "out.log is being written by another process" in _refused(command(*more), capsys)
    assert opened.calls == []


def test_what_another_process_finished_just_before_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish_first(folder: Path) -> None:
        Path("out").mkdir()

    monkeypatch.setattr("wise_edge.robot.bags.make_folder", finish_first)  # between the check and the lock
    assert main(command(bundle="embedded")) == 2
    assert "out exists; choose another folder" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []


def test_a_run_that_fails_to_start_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        assert Path("out.log").exists()
        raise RuntimeError("no GPU")

    monkeypatch.setattr(Session, "from_bundle", fail)
    assert main(command(bundle="embedded")) == 1
    assert [file.name for file in Path().iterdir()] == ["in"]


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [2, 2], "counts": "12"},
        {"size": [2, 2], "counts": "O5"},  # -1 and 5
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "oooo0"},  # 1,048,575
    ],
)
def test_runs_that_do_not_fill_the_mask_are_refused(runs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the runs do not fill 2 x 2 pixels"):
        mask_of_runs(runs)


@pytest.fixture
def unremoved(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new bag and the log of a run that was killed between them."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: os._exit(9))
        child = os.fork()
        if not child:
            main(command("--resume"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert Path("out.log").exists()


@pytest.mark.usefixtures("unremoved")
def test_a_run_that_was_killed_before_it_removed_its_log_is_finished() -> None:
    before = read_bag(Path("out"))
    assert main(command()) == 2
    assert main(command("--resume")) == 0
    assert {topic: len(found) for topic, found in read_bag(Path("out")).items()} == {
        topic: len(found) for topic, found in before.items()
    }
    assert sorted(file.name for file in Path().iterdir()) == ["bundle", "in", "out"]


@pytest.mark.usefixtures("unremoved")
def test_another_bag_in_the_place_of_the_new_one_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("out")
    shutil.copytree("in", "out")
    before = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    assert main(command("--resume")) == 2
    assert "out exists; choose another folder" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before
    assert Path("out.log").exists()
