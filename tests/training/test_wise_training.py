"""WISE training end to end on the embedded policy: every recipe, resumption, several processes, damaged input."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locations import ASSETS
from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.policy.checkpoint import load_policy

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

import torch

from wise_edge.training.recipe import load_recipe, recipe_names
from wise_edge.training.wise.config import DataConfig, ValidationConfig
from wise_edge.training.wise.data import Selection
from wise_edge.training.wise.policy import open_policy, save_side_files
from wise_edge.training.wise.trainer import WiseTrainer
from wise_edge.training.wise.validation import Validator

pytestmark = pytest.mark.slow

SMALL = [
    "model=embedded",
    "input_size=null",
    "steps=2",
    "processes=1",
    "prompts_per_step=2",
    "rollouts=2",
    "rollouts_per_device=2",
    "rollouts_at_once=2",
    "data={name: scenes, split: train, samples: 64}",
    "validation={every: 2, data: {name: scenes, split: validation, samples: 2}, max_tokens: 48}",
    "checkpoint_every=1",
    "samples_every=1",
]
"""What makes any recipe small enough for a test; every other option stays as it is."""


def distinct_recipes() -> list[str]:
    """Return the WISE recipes that still differ when they are small, the first one of each."""
    configs: list[Any] = []
    names = []
    for name in recipe_names():
        if name.startswith("wise-") and (config := load_recipe(name, SMALL)) not in configs:
            configs.append(config)
            names.append(name)
    return names


def command(recipe: str, out: Path, *overrides: str, resume: bool = False) -> list[str]:
    arguments = ["train", "--recipe", recipe, "--out", str(out), *(["--resume"] if resume else [])]
    for override in (*SMALL, *overrides):
        arguments += ["--set", override]
    return arguments


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def is_same(left: Path, right: Path) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)


@pytest.fixture(scope="module")
def embedded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe for CPUs, whose completions are long enough to end."""
    out = tmp_path_factory.mktemp("wise") / "run"
    assert main(command("wise-embedded", out, "max_completion_tokens=200", "learning_rate=1e-3")) == 0
    return out


@pytest.mark.parametrize("recipe", distinct_recipes())
def test_recipe_trains_two_steps_of_the_embedded_policy(
    recipe: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if load_recipe(recipe).load_in_4bit:  # type: ignore[union-attr]
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    if recipe == "wise-embedded":
        out = request.getfixturevalue("embedded_run")
    else:
        out = tmp_path / "run"
        assert main(command(recipe, out, "max_completion_tokens=64")) == 0
    steps = read_lines(out / "train.jsonl")
    assert [record["step"] for record in steps if "loss" in record] == [1, 2]
    assert all(0 <= record["rewards/box_iou/mean"] <= 1 for record in steps if "loss" in record)
    validations = read_lines(out / "validation.jsonl")
    assert [record["step"] for record in validations] == [0, 2]
    assert set(validations[0]) == {"step", "wise-infer", "wise-s", "seconds"}
    assert len(read_lines(out / "samples" / "step-00001.jsonl")) == 4
    assert (out / "policy" / "prompts.json").is_file() and (out / "curves.png").is_file()
    assert {str(value.dtype) for value in weights(out / "policy").values()} == {"torch.float16"}  # as in the checkpoint


def test_files_beside_the_weights_do_not_depend_on_what_the_process_did(embedded_run: Path, tmp_path: Path) -> None:
    config: Any = load_recipe("wise-embedded", SMALL)
    save_side_files(open_policy(config), tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (embedded_run / "policy" / file.name).read_bytes(), file.name


def test_trained_policy_can_be_exported(embedded_run: Path, tmp_path: Path) -> None:
    assert not is_same(embedded_run / "checkpoint-2", ASSETS / "embedded-policy")
    policy, bundle = str(embedded_run / "policy"), str(tmp_path / "bundle")
    assert main(["export", "--policy", policy, "--sam", "embedded", "--target", "onnx", "--out", bundle]) == 0


LORA = ("lora={rank: 4, alpha: 8}", "warm_start={steps: 1, batch_size: 2, learning_rate: 1e-4}")


@pytest.mark.parametrize("more", [(), LORA], ids=["all weights", "adapter after a warm start"])
def test_broken_run_resumes_to_the_end_of_the_whole_one(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks off after its last validation, whose policy is better than that of the checkpoint."""

    def break_off(trainer: WiseTrainer, *arguments: Any) -> None:
        if trainer.state.global_step == 2:
            raise RuntimeError("broken")  # SIGKILL at random moments is in benchmarks/faults/kills_wise.py
        save(trainer, *arguments)

    settings = (
        *("order=no-detailed", "max_completion_tokens=90", "learning_rate=1e-2", "threads=1"),
        *("validation.every=1", "validation.max_tokens=70", "validation.variants=[wise-s]"),
        *more,
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(command("wise-embedded", whole, *settings)) == 0
    save = WiseTrainer._save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(WiseTrainer, "_save_checkpoint", break_off)
        assert main(command("wise-embedded", broken, *settings)) == 1
    assert [path.name for path in broken.glob("checkpoint-*")] == ["checkpoint-1"]
    assert main(command("wise-embedded", broken, *settings, resume=True)) == 0
    assert contents(broken) == contents(whole)
    assert read_lines(whole / "train.jsonl")[1]["grad_norm"] > 0


def contents(out: Path) -> dict[str, Any]:
    """Return what a run's folder holds, by the names of all its files; times are left out."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(file.relative_to(out))
        if file.suffix == ".jsonl":
            timed = ("seconds", "step_time", "time/generation_s", "time/rewards_s")
            found[name] = [{k: v for k, v in row.items() if k not in timed} for row in read_lines(file)]
        elif file.suffix in (".pt", ".pth"):
            found[name] = repr(torch.load(file, weights_only=False))
        elif file.name in ("sha256.json", "training_args.bin", "trainer_state.json"):
            found[name] = None  # holds the folder's path or times
        else:
            found[name] = file.read_bytes().replace(bytes(out), b"")
    return found


def test_changed_recipe_takes_effect_where_it_is_accepted(
    embedded_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(embedded_run, out)
    changed = ("max_completion_tokens=64", "learning_rate=3e-6", "steps=3", "checkpoint_every=9", "validation.every=9")
    assert main(command("wise-embedded", out, *changed, resume=True)) == 2
    error = capsys.readouterr().err
    assert "learning_rate was 0.001 and is 3e-06" in error and "max_completion_tokens was 200 and is 64" in error
    assert main([*command("wise-embedded", out, *changed, resume=True), "--accept-changes"]) == 0
    last = read_lines(out / "train.jsonl")[-1]
    assert last["step"] == 3 and last["learning_rate"] == pytest.approx(1e-6)  # linear decay: a third is left
    assert [record["step"] for record in read_lines(out / "validation.jsonl")] == [0, 2, 3]


def test_warm_start_teaches_another_order_before_grpo(tmp_path: Path) -> None:
    warm = "warm_start={steps: 2, batch_size: 4, learning_rate: 1e-4}"
    out = tmp_path / "run"
    overrides = ("order=detailed-first", "lora={rank: 4, alpha: 8}", warm, "max_completion_tokens=64", "steps=1")
    assert main(command("wise-embedded", out, *overrides)) == 0
    assert (out / "start" / "prompts.json").is_file()
    assert (out / "best" / "adapter_model.safetensors").is_file()
    assert not is_same(out / "start", ASSETS / "embedded-policy")


def test_two_processes_share_a_step(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "wise_edge"]
    overrides = ("processes=2", "max_completion_tokens=64", "steps=1", "threads=1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *arguments, *command("wise-embedded", out, *overrides)], check=True, env=environment
    )
    assert [record["step"] for record in read_lines(out / "validation.jsonl")] == [0, 1]
    assert (out / "policy" / "model.safetensors").is_file()


def test_another_number_of_processes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("wise-embedded", tmp_path / "run", "processes=2")) == 2
    assert "expects 2, but 1 run" in capsys.readouterr().err


@pytest.fixture
def any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow rates that diverge within two steps in float32."""
    monkeypatch.setattr("wise_edge.ranges._check", lambda *_: None)


@pytest.mark.usefixtures("any_rate")
def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = (
        "max_completion_tokens=200",
        "rollouts=4",
        "rollouts_at_once=4",
        "learning_rate=1e30",
        "steps=4",
        "clip_norm=1e30",
    )
    assert main(command("wise-embedded", out, *settings)) == 1
    assert "is not finite at step" in capsys.readouterr().err
    assert (out / "checkpoint-1").exists()


def test_full_disk_is_said_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    out, limit = tmp_path / "run", 5_000_000  # bytes of a file; weights in float32 are 11.6 MB
    arguments = [sys.executable, "-m", "wise_edge", *command("wise-embedded", out, "max_completion_tokens=64")]

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, preexec_fn=fill_disk)
    assert done.returncode == 1
    assert f"{out} cannot be written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (out / "best").exists() and not (out / ".partial").exists()


def test_a_stopped_warm_start_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise SystemExit(143)  # what SIGTERM raises

    monkeypatch.setattr("wise_edge.training.wise.warm_start.write_policy", stop)
    recipe = command("wise-embedded", tmp_path / "run", "warm_start={data: scenes, steps: 1, batch_size: 2}")
    assert main(recipe) == 143
    assert not (tmp_path / "run" / ".partial").exists()


def test_validation_goes_without_damaged_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(selection: Selection, index: int) -> Any:
        if index == 1:
            raise UsageError("sample 1 is damaged")
        return whole(selection, index)

    whole = Selection.__getitem__
    monkeypatch.setattr(Selection, "__getitem__", load)
    config = load_recipe("wise-embedded")
    source = open_policy(config)  # type: ignore[arg-type]
    selected = ValidationConfig(data=DataConfig("validation", samples=3), variants=("answer",), batch_size=2)
    figures = Validator(selected, source).run(load_policy(Path(source.name)))["answer"]
    assert "sample 1 is damaged; validation skips it" in capsys.readouterr().err
    assert figures.valid_rate == 1.0 and figures.box_accuracy in (0.0, 0.5, 1.0)


@pytest.mark.usefixtures("any_rate")
def test_warm_start_that_diverges_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warm = "warm_start={steps: 3, batch_size: 4, learning_rate: 1e30}"
    assert main(command("wise-embedded", tmp_path / "run", warm)) == 1
    assert "the loss of the warm start is not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "start").exists()


def test_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("stage: wise\n")
    assert main(command("wise-embedded", tmp_path)) == 2
    assert "pass --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=no/such/folder", "model no/such/folder"),
        ("input_size=100", "input_size: 100 is not a multiple of 28"),
        ("data={name: reasonseg, split: val, samples: 4}", "reasonseg"),
        ("data={name: scenes, split: tset, samples: 4}", "unknown split"),
        ("rewards.similarity_model=/no/such/encoder", "/no/such/encoder"),
        ("validation.sam=/no/such/sam", "/no/such/sam"),
    ],
)
def test_what_cannot_be_read_is_named(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = "warm_start={steps: 1000, batch_size: 4, learning_rate: 1e-3}"
    assert main(command("wise-embedded", tmp_path / "run", warm, override)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
    assert not (tmp_path / "run").exists()  # nothing is in the way of the corrected command


def test_model_without_vision_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").mkdir()
    source = ASSETS / "embedded-policy"
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / "text" / name).write_bytes((source / name).read_bytes())
    (tmp_path / "text" / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    assert main(command("wise-embedded", tmp_path / "run", f"model={tmp_path / 'text'}")) == 2
    assert "model_type is 'qwen2'; supported are qwen2_vl" in capsys.readouterr().err


def test_lists_are_trained_and_validated(tmp_path: Path) -> None:
    """The embedded policy has never written a list: every answer is unreadable, and that is what the figures say."""
    settings = (
        "form=box-point-list",
        "order=no-detailed",
        "data={name: scenes-generalized, split: train, samples: 64}",
        "validation.data={name: scenes-generalized, split: validation, samples: 3}",
        "validation.sam=embedded",
        "max_completion_tokens=64",
    )
    out = tmp_path / "run"
    assert main(command("wise-embedded", out, *settings)) == 0
    last = read_lines(out / "train.jsonl")[-1]
    terms = {name.split("/")[1] for name in last if name.startswith("rewards/") and name.endswith("/mean")}
    assert terms == {"format", "answer", "box_iou", "box_l1", "points", "count"}
    validated = [figures for figures in read_lines(out / "validation.jsonl")[-1].values() if isinstance(figures, dict)]
    assert {(figures["valid_rate"], figures["giou"]) for figures in validated} == {(0.0, 0.0)}
