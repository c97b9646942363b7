"""What can be known is checked before the work: nothing is opened, measured or written for a command that must fail."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fake_session
from locations import ASSETS
from wise_edge.bundle.store import Bundle
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, UsageError, WiseEdgeError
from wise_edge.images import save_png
from wise_edge.runtimes import backends
from wise_edge.runtimes.session import Session

Refuse = Callable[..., str]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must fail before anything is opened or written; returns its line."""
    monkeypatch.chdir(tmp_path)

    def open_nothing(*about: object, **options: object) -> Session:
        pytest.fail("something was opened")

    monkeypatch.setattr(Session, "from_bundle", open_nothing)
    monkeypatch.setattr(Session, "from_checkpoints", open_nothing)

    def run(*arguments: str, code: int = 2) -> str:
        before = sorted(Path.cwd().rglob("*"))
        assert main(list(arguments)) == code
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert sorted(Path.cwd().rglob("*")) == before
        return err.removeprefix("error: ")

    return run


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--variants", ""], "the argument after --variants is empty"),
        (["--variants", "verbose,,answer"], "--variants has an empty name"),
        (["--variants", "verbose, wise_s"], "unknown variant 'wise_s'; choose one of verbose"),
        (["--variants", "answer, answer"], "--variants names answer twice"),
        (["--backends", ""], "the argument after --backends is empty"),
        (
            ["--backends", "onnx,lama"],
            "unknown policy backend 'lama'; did you mean llama? choose one of auto, tensorrt",
        ),
        (["--backends", "onnx,onnx"], "--backends names onnx twice"),
        (["--pixels", "9"], "9 pixels hold no image token of 28 x 28; allow 784 or more"),
        (["--backends", "auto,onnx"], "--backends auto,onnx measures onnx twice, since auto chooses it here"),
        (["--mask-backend", "nope"], "unknown mask backend 'nope'"),
        (["--out", "a.pdf"], "--out a.pdf: unknown report type; use .html, .json or .csv"),
        (["--out", "a.json", "--out", "./a.json"], "--out names a.json twice"),
        (["--out", "none/a.json"], "the folder none does not exist"),
        (["--dataset", ""], "the argument after --dataset is empty"),
        (["--split", ""], "the argument after --split is empty"),
        (["--images", "none"], "none is not a folder"),
        (["--images", "pictures", "--query", ""], "the argument after --query is empty"),
        (["--images", "pictures"], "a.png has no query; write one to pictures/a.txt"),
        (["--power", "none.csv"], "cannot read none.csv: No such file or directory"),
        (["--power", "old.csv"], "old.csv: its readings are"),
        (["--power", "joules.csv"], "joules.csv has the columns time, joules"),
        (["--scenes", "2", "--out", "a.json", "plan"], "'profile plan' does not accept --scenes; remove it"),
        (["--json", "compare", "a.json", "b.json"], "'profile compare' does not accept --json; remove it"),
    ],
)
def test_a_profile_measures_nothing_in_vain(arguments: list[str], line: str, refuse: Refuse) -> None:
    Path("pictures").mkdir()
    save_png(np.full((20, 30, 3), 9, np.uint8), Path("pictures/a.png"))
    Path("old.csv").write_text("time,power_w\n1700000000,10\n1700000001,10\n")
    Path("joules.csv").write_text("time,joules\n")
    assert refuse("profile", *arguments).startswith(line)


def test_a_second_backend_that_cannot_run_is_refused_first(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refuse("profile", "--backends", "onnx,llama", code=4).startswith(
        "the bundle has no policy.gguf for llama.cpp"
    )
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, fake_session.UNINSTALLED))
    line = "no_such_package is not installed; run: pip install 'wise-edge[fiction]'"
    assert refuse("profile", "--backends", f"onnx,{fake_session.UNINSTALLED.name}", code=3).startswith(line)
    mask = replace(fake_session.UNINSTALLED, parts={"mask": fake_session.UNINSTALLED.parts["policy"]})
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, mask))
    assert refuse("profile", "--mask-backend", mask.name, code=3).startswith(line)


def test_a_folder_that_may_not_be_listed_is_refused(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pictures").mkdir()

    def deny(folder: object) -> object:
        raise PermissionError(13, os.strerror(13), str(folder))

    monkeypatch.setattr(Path, "iterdir", deny)
    assert refuse("profile", "--images", "pictures") == "cannot read the folder pictures: Permission denied\n"


def test_a_profile_needs_a_cache_that_can_be_written(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    assert "Not a directory; set XDG_CACHE_HOME to another" in refuse("profile", "--scenes", "1")


@pytest.mark.parametrize("out", [[], ["--out", "records.jsonl"]])
def test_an_evaluation_with_an_unknown_variant_opens_nothing(out: list[str], refuse: Refuse) -> None:
    line = "unknown variant 'wise_s'; choose one of verbose, wise, wise-infer, wise-s, answer"
    assert refuse("evaluate", "--variant", "wise_s", "--limit", "1", *out).startswith(line)
    checkpoints = ["--policy", "embedded", "--sam", "embedded"]
    assert refuse("evaluate", "--variant", "wise_s", "--limit", "1", *checkpoints, *out).startswith(line)


def test_an_empty_word_is_not_the_default(refuse: Refuse) -> None:
    assert refuse("demo", "--query", "").startswith("the argument after --query is empty")
    assert refuse("evaluate", "--split", "", "--limit", "1").startswith("the argument after --split is empty")
    assert refuse("evaluate", "--variant", "", "--limit", "1").startswith("the argument after --variant is empty")


@pytest.mark.parametrize("recipe", ["embedded-sam-smoke", "wise-embedded"])
def test_a_training_needs_a_folder_that_can_be_made(recipe: str, refuse: Refuse) -> None:
    pytest.importorskip("trl")
    Path("file").write_text("")
    line = "cannot create the folder file/run: Not a directory; choose another"
    assert refuse("train", "--recipe", recipe, "--out", "file/run").startswith(line)


EXPORT = ["export", "--policy", "embedded", "--sam", "embedded", "--out", "b"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--target", ""], "the argument after --target is empty"),
        (["--target", "onnx,"], "--target has an empty name"),
        (["--target", "onnx, onnx"], "--target names onnx twice"),
        (["--target", "ONNX"], "unknown target 'ONNX'; choose onnx, gguf"),
        (["--target", "onnx,hf"], "--target hf writes no bundle; export to the other targets with another command"),
        (["--target", "hf", "--quant", "Q8_0"], "'export --target hf' does not accept --quant; remove it"),
        (["--target", "hf", "--no-importance"], "'export --target hf' does not accept --no-importance; remove it"),
        (["--target", "tensorrt", "--device", "orin,"], "--device has an empty name; choose this, orin"),
        (["--target", "tensorrt", "--device", "sm89, sm89"], "--device names sm89 twice"),
        (["--quant", "Q4_K_M"], "--quant applies to --target gguf alone; add it or omit --quant"),
        (["--no-importance"], "--no-importance applies to --target gguf alone"),
        (
            ["--target", "gguf", "--onnx-precision", "int8"],
            "--onnx-precision applies to --target onnx and tensorrt alone",
        ),
        (["--edgellm-quant", "fp8"], "--edgellm-quant applies to --target edgellm alone"),
        (["--out", "none/b"], "the folder none does not exist; create it first"),
        (["--out", "x" * 300], "cannot write xxx"),
    ],
)
def test_an_export_that_must_fail_converts_nothing(
    arguments: list[str], line: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = pytest.importorskip("wise_edge.export.pipeline")
    monkeypatch.setattr(pipeline, "PolicyCheckpoint", lambda *_: pytest.fail("the policy was opened"))
    Path("file").write_text("no segmenter")
    assert refuse(*EXPORT, *arguments).startswith(line)


def test_an_export_replaces_nothing_that_it_reads(refuse: Refuse) -> None:
    pytest.importorskip("torch")
    shutil.copytree(ASSETS / "embedded-policy", "models/policy")
    Path("models/bundle.json").write_text("{}")
    line = "models would replace what this command reads (models/policy)"
    assert refuse(*EXPORT, "--policy", "models/policy", "--out", "models", "--force").startswith(line)


@pytest.mark.parametrize("extra", [["--quant", "Q8_0"], []])
def test_what_compares_gguf_files_is_missed_before_they_are_made(
    extra: list[str], refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    line = "llama_cpp is not installed; run: pip install 'wise-edge[llama]'"
    assert refuse(*EXPORT, "--target", "onnx,gguf", *extra, code=3).startswith(line)


def test_a_policy_that_one_target_refuses_is_given_to_none(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edgellm target comes after gguf, which would take minutes for a large policy."""
    pytest.importorskip("tensorrt_edgellm")
    targets = pytest.importorskip("wise_edge.export.targets")
    monkeypatch.setattr(targets.GgufTarget, "write", lambda *_: pytest.fail("a file was written"))
    arguments = ["--target", "gguf,edgellm", "--device", "orin", "--edgellm-quant", "int4_awq"]
    assert refuse(*EXPORT, *arguments).startswith("int4_awq needs widths of multiples of 128, the policy is 192 wide")


def test_space_for_the_merged_policy_too_is_checked_first(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
    assert refuse(*EXPORT).startswith(f"{Path.cwd()} has 1 B free, but about ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--variant", ""], "the argument after --variant is empty"),
        (["--variant", "WISE"], "unknown variant 'WISE'"),
        (["--deadline-ms", "0"], "deadline_ms must be a positive number"),
        (["--deadline-ms", "nan"], "--deadline-ms is nan; pass a finite number"),
        (["--deadline-ms", "50", "--variant", "answer"], "a deadline chooses the variant"),
        (["--mask", "none/mask.png"], "the folder none does not exist"),
        (["--overlay", "picture.gif"], "picture.gif: the kind overlay is written to files that end in .png"),
    ],
)
def test_a_query_that_must_fail_opens_no_model(arguments: list[str], line: str, refuse: Refuse) -> None:
    save_png(np.full((20, 30, 3), 9, np.uint8), Path("picture.png"))
    assert refuse("run", "picture.png", "the ring", *arguments).startswith(line)


@pytest.mark.parametrize(("backend", "error"), [("lama", UsageError), ("llama", DeviceError)])
def test_files_are_not_hashed_for_a_backend_that_cannot_run(
    backend: str, error: type[WiseEdgeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "verify_hashes", lambda _: pytest.fail("seven GB were read"))
    with pytest.raises(error):
        Session.from_bundle(policy_backend=backend)
