"""`wise-edge setup`: a plan alone, a bundle that answers, the same one again, and what stands in the way."""

from __future__ import annotations

import json
import shlex
from collections import namedtuple
from pathlib import Path

import pytest

from locations import ROOT
from wise_edge.bundle.store import load
from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError

pytest.importorskip("wise_edge.export.pipeline", exc_type=MissingExtraError)

from tiny_qwen import make_qwen, save_qwen
from wise_edge.export import pipeline
from wise_edge.export.options import ExportOptions
from wise_edge.planning import setup as planning

Usage = namedtuple("Usage", "total used free")
EMBEDDED = ("setup", "embedded", "embedded", "--device", "cpu")


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "export_bundle", lambda *_, **__: pytest.fail("something was exported"))


def test_a_dry_run_says_all_and_leaves_nothing(no_export: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EMBEDDED, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert (lines["plan"].rstrip(), err) == ("plan       Q8_0 on llama, segmenter fp32 on onnx", "")
    assert {"device", "policy", "segmenter", "why", "rejected", "memory", "disk", "time", "same"} <= set(lines)
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_is_one_document(no_export: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EMBEDDED, "--dry-run", "--json", "--bits", "4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["precision"], document["policy_backend"], document["out"]) == (
        "Q4_K_M",
        "llama",
        "embedded-gguf-Q4_K_M",
    )
    assert document["memory_bytes"] == sum(part["bytes"] for part in document["memory"])
    assert all((step["seconds"] is None) or step["seconds"] > 0 for step in document["steps"])
    assert all(step["reason"] for step in document["steps"])


def test_the_printed_export_is_that_of_the_plan(no_export: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EMBEDDED, "--dry-run", "--json", "--bits", "4", "--picture", "square:112", "--no-verify"]) == 0
    words = shlex.split(json.loads(capsys.readouterr().out)["export_command"])
    assert words[:2] == ["wise-edge", "export"]
    assert words[-3:] == ["--no-verify", "--out", "embedded-gguf-Q4_K_M"]
    options = ExportOptions(("gguf",), quant="Q4_K_M", picture="square:112")
    assert words[6:-3] == options.arguments() == ["--target", "gguf", "--quant", "Q4_K_M", "--picture", "square:112"]


def test_a_published_policy_is_asked_in_the_default_words_if_that_is_said(
    no_export: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_qwen(make_qwen("qwen3_vl"), tmp_path / "stock")
    (folder / "prompts.json").unlink()
    command = ["setup", str(folder), "embedded", "--device", "cpu", "--dry-run", "--json"]
    assert main(command) == 2
    assert "add --default-wording to 'wise-edge setup'" in capsys.readouterr().err
    assert main([*command, "--default-wording"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == "stock-gguf-Q8_0"


def test_a_time_of_a_large_policy_says_nothing_of_a_small_one(
    no_export: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EMBEDDED[:3], "--device", "rtx-4090", "--dry-run", "--json", "--no-verify"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert {step["reason"] for step in steps if "graphs" in step["name"] or "engines" in step["name"]} == {
        "not measured with a policy of this size"
    }


def test_a_full_disk_is_said_before_the_work(
    no_export: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    assert main([*EMBEDDED]) == 1
    assert "free, and making the bundle takes" in capsys.readouterr().err.splitlines()[-1]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--bits", "5"], "--bits is 5; choose 16, 8, 4"),
        (["--device", "orin"], "unknown device 'orin'; choose one of this, cpu, orin-nano"),
        (["--out", "no/such/place"], "no/such"),
        (["--calibration", "no-such"], "no-such is not a folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], line: str, no_export: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EMBEDDED[:3], *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert line in err


@pytest.mark.parametrize(
    ("policy", "sam", "lines"),
    [
        ("gone", "none.pth", ["gone does not exist; pass a checkpoint's folder", "; none.pth does not exist; pass a"]),
        ("gone", "embedded", ["gone does not exist"]),
        ("embedded", "none.pth", ["error: none.pth does not exist"]),
        (
            "Qwen/Qwen2.5-VL-3B-Instruct",
            "sam_vit_b_01ec64.pth",
            [
                "hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir Qwen2.5-VL-3B-Instruct; ",
                "curl -L -o sam_vit_b_01ec64.pth https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth\n",
            ],
        ),
        (
            "Qwen2.5-VL-3B-Instruct",
            "models/sam2.1_hiera_tiny.pt",
            [
                "hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir Qwen2.5-VL-3B-Instruct; ",
                "curl -L -o models/sam2.1_hiera_tiny.pt "
                "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_tiny.pt\n",
            ],
        ),
        (
            "embedded",
            "sam_hq_vit_tiny.pth",
            ["curl -L -o sam_hq_vit_tiny.pth https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_tiny.pth\n"],
        ),
        ("embedded", "facebook/sam-vit-base", ["hf download facebook/sam-vit-base --local-dir sam-vit-base"]),
    ],
)
def test_all_that_is_missing_is_said_in_one_line(
    policy: str, sam: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", policy, sam, "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(line in err for line in lines), err


@pytest.mark.slow
def test_the_printed_line_runs_and_the_bundle_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EMBEDDED, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["reused"], first["verified"], first["first_query"]["status"]) == (False, True, "found")
    assert first["first_query"]["backends"] == {"policy": "llama", "mask": "onnx"}

    words = shlex.split(first["commands"][-1])[1:]
    scene = str(ROOT / "docs/scene.png")
    assert words[:3] == ["run", "docs/scene.png", "the small dotted object"]
    line = [scene if word == words[1] else word for word in words]
    assert main([*line, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    box = result["objects"][0]["box"]
    assert all(abs(found - right) <= 4 for found, right in zip(box, (46, 104, 94, 152), strict=True))

    before = load(first["bundle"]).sha256
    monkeypatch.setattr(pipeline, "export_bundle", lambda *_, **__: pytest.fail("it was exported again"))
    assert main([*EMBEDDED, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["reused"], again["sha256"]) == (True, before)

    assert main([*EMBEDDED, "--bits", "4", "--out", first["bundle"]]) == 2
    assert "is a bundle of other options; pass --force to replace it" in capsys.readouterr().err.splitlines()[-1]
    assert load(first["bundle"]).sha256 == before
