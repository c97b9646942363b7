"""Records on disk: killed runs are resumed, shards are joined, and records of other runs are rejected."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fake_session
from locations import SUPPORT
from wise_edge.bundle.store import load, resolve_bundle, write_manifest
from wise_edge.cli.main import main
from wise_edge.errors import WiseEdgeError
from wise_edge.evaluation.record_log import join_shards, open_log, read_log, write_log
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.evaluation.shards import Shard, find_shard

SETTINGS = Settings("scenes", "test", 6, "lisa", "truth", None, "0" * 64, {"mask": "fake"})

KILLED = """
import os, signal, sys
import fake_session, pytest
from wise_edge.cli.main import main

def write(image, query, variant):
    global asked
    asked += 1
    if asked == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return fake_session.write_canned(image, query, variant)

asked = 0
fake_session.install(pytest.MonkeyPatch(), write)
sys.exit(main(["evaluate", "--limit", "6", *sys.argv[2:]]))
"""


@pytest.fixture(autouse=True)
def _fresh_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # restored at the end, whatever a test sets
        monkeypatch.delenv(name)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of a run over two scenes, in `records.jsonl`."""
    fake_session.install(monkeypatch)
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl"]) == 0


def _start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    folders = os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments],
        env=os.environ | {"PYTHONPATH": folders} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _lines(name: str) -> list[dict[str, Any]]:
    """Return a file's lines without the latencies, which no two runs share."""
    lines = [json.loads(line) for line in Path(name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "latency_ms"} for line in lines]


def _report(text: str) -> dict[str, Any]:
    """Return a report without the latencies and the number of processes."""
    report: dict[str, Any] = json.loads(text)
    for figures in (report, *report["by_kind"].values()):
        for part in (figures, figures["intervals"]):
            part.pop("latency_ms")
    return {key: value for key, value in report.items() if key != "shards"}


def _mask_record(index: int) -> MaskRecord:
    return MaskRecord(index, f"test-{index}", None, "the ring", 1, 2, 0.5, None, None, {"total": 1.0}, None)


def test_a_killed_run_is_resumed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    process = _start("4", "--out", "records.jsonl")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(_lines("records.jsonl")) == 1 + 3
    with Path("records.jsonl").open("a") as file:
        file.write('{"index": 3, "id": "tes')  # what a kill within a write leaves

    opened = fake_session.install(monkeypatch)
    assert main(["evaluate", "--limit", "6", "--out", "records.jsonl", "--resume", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "3 of 6 samples are done already\n"
    assert opened.policy.encoded == 3
    assert main(["evaluate", "--limit", "6", "--out", "whole.jsonl", "--json"]) == 0
    assert _lines("records.jsonl") == _lines("whole.jsonl")
    assert _report(out) == _report(capsys.readouterr().out)

    assert main(["evaluate", "--limit", "6", "--out", "whole.jsonl", "--resume", "--json"]) == 0
    assert opened.policy.encoded == 9  # nothing was left to do
    assert _report(out) == _report(capsys.readouterr().out)


@pytest.mark.parametrize("left", ["", '{"settings": {"datas'])
def test_a_run_killed_at_its_first_line_starts_over(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("records.jsonl").write_text(left)
    fake_session.install(monkeypatch)
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--resume"]) == 0
    assert [line.get("id") for line in _lines("records.jsonl")] == [None, "test-0", "test-1"]


@pytest.mark.usefixtures("recorded")
def test_the_first_line_says_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, records = read_log(Path("records.jsonl"))
    assert (settings.dataset, settings.split, settings.samples, settings.metric_mode) == ("scenes", "test", 2, "lisa")
    assert (settings.prompt, settings.variant, settings.shards) == ("predicted", "wise-s", 1)
    assert settings.backends == {"policy": "fake", "mask": "fake"}
    assert len(settings.model_sha256) == 64
    assert records[0].mask is not None and records[0].mask["size"] == [224, 224]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--limit", "3"], "samples 2"),
        (["--variant", "verbose"], "variant wise-s"),
        (["--split", "validation"], "split test"),
        (["--metric-mode", "paper"], "metric_mode lisa"),
        (["--oracle-prompt"], "prompt predicted, variant wise-s, backends"),
    ],
)
def test_other_settings_are_not_resumed(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("records.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--resume", *arguments]) == 2
    assert f"records.jsonl was made with other settings ({word}" in capsys.readouterr().err
    assert Path("records.jsonl").read_bytes() == before


@pytest.mark.usefixtures("recorded")
def test_another_model_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(resolve_bundle("embedded"), "bundle")
    write_manifest(Path("bundle"), replace(load("bundle").manifest, name="another"))
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--resume", "--bundle", "bundle"]) == 2
    assert "model_sha256" in capsys.readouterr().err


@pytest.mark.usefixtures("recorded")
def test_records_of_other_data_are_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("records.jsonl").read_text()
    Path("records.jsonl").write_text(text.replace('"id": "test-1"', '"id": "elsewhere-1"'))
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--resume"]) == 2
    assert "elsewhere-1" in capsys.readouterr().err


def test_a_file_is_replaced_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    assert main(["evaluate", "--limit", "1", "--out", "records.jsonl"]) == 0
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl"]) == 2
    assert "use --resume to continue it, or --force to replace it" in capsys.readouterr().err
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--force"]) == 0
    assert len(_lines("records.jsonl")) == 3


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [*lines[:2], "{}", *lines[2:]],
        lambda lines: [*lines[:2], "torn", *lines[2:]],
        lambda lines: lines[1:],
        lambda lines: ['{"settings": 3}', *lines[1:]],
        lambda lines: ["[]", *lines[1:]],
    ],
)
def test_a_damaged_file_is_named_with_its_line(spoil: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("records.jsonl").read_text().splitlines()
    Path("records.jsonl").write_text("\n".join(spoil(lines)) + "\n")
    assert main(["evaluate", "--limit", "2", "--out", "records.jsonl", "--resume"]) == 2
    assert "records.jsonl, line " in capsys.readouterr().err


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake_session.install(monkeypatch)
    monkeypatch.setattr(os, "fsync", fail)
    assert main(["evaluate", "--limit", "1", "--out", "records.jsonl"]) == 1
    err = capsys.readouterr().err
    assert err == "error: cannot write records.jsonl: No space left on device; fix that, then resume with --resume\n"


def test_shards_by_hand_report_as_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    command = ["evaluate", "--limit", "7", "--json"]
    assert main([*command, "--out", "one.jsonl"]) == 0
    whole = _report(capsys.readouterr().out)
    for index in (2, 0):
        assert main([*command, "--out", "parts.jsonl", "--shard", f"{index}/3"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"shard {index}/3 is done; the last shard to finish prints the report\n"
    assert not Path("parts.jsonl").exists()
    assert main([*command, "--out", "parts.jsonl", "--shard", "1/3"]) == 0
    assert _report(capsys.readouterr().out) == whole
    assert _lines("parts.jsonl") == _lines("one.jsonl")
    assert [line["id"] for line in _lines("parts.rank1.jsonl")[1:]] == ["test-1", "test-4"]

    assert main([*command, "--out", "parts.jsonl", "--shard", "0/3", "--resume"]) == 0
    assert _report(capsys.readouterr().out) == whole
    assert main([*command, "--out", "parts.jsonl", "--resume"]) == 0  # the joined file is one process's
    assert _report(capsys.readouterr().out) == whole


def test_more_shards_than_samples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_session.install(monkeypatch)
    for index in range(3):
        assert main(["evaluate", "--limit", "2", "--out", "r.jsonl", "--shard", f"{index}/3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2


def test_of_launched_processes_the_first_waits_and_reports() -> None:
    ranks = [
        _start("0", "--out", "r.jsonl", "--json", RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2") for rank in ("0", "1")
    ]
    (first, _), (second, _) = (process.communicate(timeout=300) for process in ranks)
    assert [process.returncode for process in ranks] == [0, 0]
    assert second == ""
    report = json.loads(first)
    assert (report["samples"], report["shards"]) == (6, 2)
    assert [line.get("index") for line in _lines("r.jsonl")] == [None, *range(6)]


def test_the_first_process_does_not_wait_for_one_that_has_ended() -> None:
    settings = replace(SETTINGS, shards=2)
    now_s, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_s[0] += 600
        if len(slept) == 4:  # the other process still works
            write_log(Path("r.rank1.jsonl"), replace(settings, shard=1), [])

    write_log(Path("r.rank0.jsonl"), settings, [])
    with pytest.raises(WiseEdgeError, match=r"no process has added a record to r\.rank\*\.jsonl for 60 min"):
        Shard(0, 2, launched=True).gather(Path("r.jsonl"), settings, lambda: now_s[0], sleep)
    assert len(slept) == 4 + 7


def test_a_shard_of_another_run_does_not_join(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    assert main(["evaluate", "--limit", "2", "--out", "r.jsonl", "--shard", "0/2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--limit", "2", "--out", "r.jsonl", "--shard", "1/2", "--variant", "verbose"]) == 2
    assert "r.rank0.jsonl was made with other settings (variant wise-s)" in capsys.readouterr().err
    assert not Path("r.jsonl").exists()
    assert main(["evaluate", "--limit", "2", "--out", "r.jsonl", "--shard", "1/2", "--force"]) == 0


def test_shares_divide_the_samples() -> None:
    shares = [Shard(index, 3).places(8) for index in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Shard().path(Path("a/r.jsonl")) == Path("a/r.jsonl")
    assert Shard(1, 3).path(Path("a/r.jsonl")) == Path("a/r.rank1.jsonl")


def test_the_environment_of_a_launcher_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_shard(None) == Shard()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert find_shard(None) == Shard()
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    assert find_shard(None) == Shard(3, 8, launched=True)
    assert find_shard("0/4") == Shard(0, 4)


def test_shards_join_in_order_and_only_when_all_are_there(tmp_path: Path) -> None:
    paths = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    logs = [open_log(path, Settings(**vars(SETTINGS) | {"shard": i, "shards": 2})) for i, path in enumerate(paths)]
    settings = Settings(**vars(SETTINGS) | {"shards": 2})
    with logs[0] as first, logs[1] as second:
        for index in (0, 2, 4):
            first.append(_mask_record(index))
        assert join_shards(paths, settings) is None
        for index in (1, 3):
            second.append(_mask_record(index))
        assert join_shards(paths, settings) is None
        second.append(_mask_record(5))
        joined = join_shards(paths, settings)
    assert joined == [_mask_record(index) for index in range(6)]


def test_an_interrupt_keeps_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        if opened.policy.encoded == 3:
            raise KeyboardInterrupt
        return fake_session.write_canned(image, query, variant)

    opened = fake_session.install(monkeypatch, interrupt)
    assert main(["evaluate", "--limit", "5", "--out", "records.jsonl"]) == 130
    assert len(_lines("records.jsonl")) == 1 + 2


@pytest.mark.slow
def test_accelerate_divides_the_work(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = ["-m", "wise_edge", "evaluate", "--limit", "4", "--out", str(tmp_path / "r.jsonl"), "--json"]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["samples"], report["shards"]) == (4, 2)
