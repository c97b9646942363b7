"""The folder of a WISE training: what a run goes on from, and what it writes at its end."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from damage import flip_bit
from locations import ASSETS
from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.recipe import load_recipe
from wise_edge.training.wise.best import BestPolicy
from wise_edge.training.wise.checkpoints import checkpoint_name, publish, seal, staging_folder
from wise_edge.training.wise.config import WarmStartConfig, WiseConfig
from wise_edge.training.wise.policy import open_policy
from wise_edge.training.wise.run_folder import finish_run, prepare_run, start_folder
from wise_edge.training.wise.train import _inputs
from wise_edge.training.wise.trainer import WiseTrainer
from wise_edge.training.wise.validation import Figures

POLICY = ASSETS / "embedded-policy"
LOGS = ("train.jsonl", "validation.jsonl")


@pytest.fixture(scope="module")
def config() -> WiseConfig:
    config = load_recipe("wise-embedded", ["checkpoints_kept=1", f"model={POLICY}"])
    assert isinstance(config, WiseConfig)
    return config


@pytest.fixture
def run(config: WiseConfig, tmp_path: Path) -> Path:
    """A run with validations until step 3, its newest checkpoint at step 2, and what kills leave."""
    prepare_run(config, tmp_path, {}, accept_changes=False)
    for step in (1, 2):
        stage(tmp_path, checkpoint_name(step))
        publish(tmp_path, checkpoint_name(step))
    keep(config, tmp_path, 3)
    for name in LOGS:
        (tmp_path / name).write_text("".join(json.dumps({"step": step}) + "\n" for step in range(4)) + '{"st')
    stage(tmp_path, checkpoint_name(3))
    return tmp_path


def stage(out: Path, name: str) -> None:
    folder = staging_folder(out) / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(name)


def keep(config: WiseConfig, out: Path, step: int) -> None:
    best = BestPolicy(out, config.validation.tolerance)
    shutil.copytree(POLICY, best.staged)
    best.keep(step, {"wise-s": Figures(0.5, 0.5, 0.5, 1.0, step)})


def steps(out: Path) -> list[list[int]]:
    return [[json.loads(line)["step"] for line in (out / name).read_text().splitlines()] for name in LOGS]


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_resumed_run_is_cut_back_to_its_checkpoint(config: WiseConfig, run: Path) -> None:
    assert prepare_run(config, run, {}, accept_changes=False) == run / "checkpoint-2"
    assert steps(run) == [[0, 1, 2], [0, 1, 2]]
    assert {path.name for path in run.iterdir()} == {
        *LOGS, "best", "best.json", "checkpoint-2", "recipe.yaml", "run.json"
    }  # fmt: skip


def test_run_without_a_checkpoint_begins_again(config: WiseConfig, run: Path) -> None:
    for step in (1, 2):
        shutil.rmtree(run / checkpoint_name(step))
    flip_bit(run / "best" / "model.safetensors")  # as a kill may leave it that came while it was removed
    assert prepare_run(config, run, {}, accept_changes=False) is None
    assert steps(run) == [[], []] and not (run / "best").exists()
    assert BestPolicy(run, config.validation.tolerance).beats(0, {"wise-s": Figures(0.1, 0.1, 0.1, 1.0, 99)})


def test_finished_run_without_checkpoints_is_kept(config: WiseConfig, run: Path) -> None:
    finish_run(config, open_policy(config), run)
    for step in (1, 2):
        shutil.rmtree(run / checkpoint_name(step))
    before = state(run)
    with pytest.raises(UsageError, match="has a policy but no checkpoint"):
        prepare_run(config, run, {}, accept_changes=False)
    assert state(run) == before


@pytest.mark.parametrize(("name", "value"), [("step", None), ("judged", "2"), ("highest_ciou", [0.5]), ("ciou", True)])
def test_record_of_the_best_policy_is_checked_first(name: str, value: Any, config: WiseConfig, run: Path) -> None:
    record = json.loads((run / "best.json").read_text())
    (run / "best.json").write_text(json.dumps({**record, name: value}))
    before = state(run)
    with pytest.raises(UsageError, match=f"best.json is damaged: its {name} is not a number"):
        prepare_run(config, run, {}, accept_changes=False)
    assert state(run) == before


@pytest.mark.parametrize("name", ["best", "start"])
def test_damage_that_a_run_would_go_on_from_is_refused(name: str, config: WiseConfig, run: Path) -> None:
    if name == "start":
        shutil.copytree(POLICY, start_folder(run))
        seal(start_folder(run))
    flip_bit(run / name / "model.safetensors")
    before = state(run)
    with pytest.raises(UsageError, match=f"{name} is damaged; restore it from a copy, or delete it"):
        prepare_run(config, run, {}, accept_changes=False)
    assert state(run) == before
    shutil.rmtree(run / name)
    assert prepare_run(config, run, {}, accept_changes=False) == run / "checkpoint-2"
    assert steps(run) == [[0, 1, 2], [0, 1] if name == "best" else [0, 1, 2]]  # step 2 is validated again


def test_warm_start_of_another_recipe_is_not_gone_on_from(run: Path, config: WiseConfig) -> None:
    for step in (1, 2):
        shutil.rmtree(run / checkpoint_name(step))
    other = load_recipe("wise-embedded", ["seed=9", f"model={POLICY}"])
    assert isinstance(other, WiseConfig)
    shutil.copytree(POLICY, start_folder(run))
    seal(start_folder(run))
    with pytest.raises(UsageError, match="seed was 0 and is 9"):
        prepare_run(other, run, {}, accept_changes=False)


def test_end_of_a_run_writes_what_is_missing_and_nothing_else(config: WiseConfig, run: Path) -> None:
    start = open_policy(config)
    prepare_run(config, run, {}, accept_changes=False)
    finish_run(config, start, run)
    written = state(run / "policy")
    assert "model.safetensors" in written and (run / "curves.png").exists() and not staging_folder(run).exists()
    before = state(run)
    finish_run(config, start, run)
    assert state(run) == before

    (run / "policy" / "tokenizer.json").unlink()
    (run / "curves.png").unlink()
    finish_run(config, start, run)
    assert {name: data for name, (data, _) in state(run / "policy").items()} == {
        name: data for name, (data, _) in written.items()
    }
    assert (run / "curves.png").exists()

    flip_bit(run / "policy" / "model.safetensors")
    finish_run(config, start, run)
    assert (run / "policy" / "model.safetensors").read_bytes() == written["model.safetensors"][0]


def test_policy_of_an_earlier_best_one_is_replaced(config: WiseConfig, run: Path) -> None:
    start = open_policy(config)
    finish_run(config, start, run)
    before = state(run / "policy")
    keep(config, run, 4)
    finish_run(config, start, run)
    after = state(run / "policy")
    assert after.keys() == before.keys()
    assert after["sha256.json"][0] != before["sha256.json"][0]  # it holds what the policy was made from


def test_flipped_bit_in_the_best_policy_does_not_reach_the_final_one(config: WiseConfig, run: Path) -> None:
    flip_bit(run / "best" / "model.safetensors")
    with pytest.raises(UsageError, match="best is damaged"):
        finish_run(config, open_policy(config), run)
    assert not (run / "policy").exists()


def test_what_a_kill_left_beside_a_folder_is_put_back_or_removed(config: WiseConfig, run: Path) -> None:
    best, scratch, other = run / "best", run / ".best.wise-edge", run / ".checkpoint-2.wise-edge"
    before = state(best)
    for folder in (scratch, other):
        (folder / "new").mkdir(parents=True)
        (folder / "new" / "model.safetensors").write_text("half")
    best.rename(scratch / "old")  # where folders cannot be exchanged, between the two renames
    prepare_run(config, run, {}, accept_changes=False)
    assert state(best) == before and not scratch.exists() and not other.exists()


def test_figures_that_are_not_finite_are_logged_as_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.GRPOTrainer.log", lambda *_: None)
    monkeypatch.setattr(WiseTrainer, "is_world_process_zero", lambda _: True)
    trainer: Any = object.__new__(WiseTrainer)
    trainer._out, trainer._config, trainer.state = tmp_path, SimpleNamespace(steps=9), SimpleNamespace(global_step=3)
    trainer._pace = None
    trainer.log({"reward": 0.5, "ratio/max": math.inf, "none": None})
    written = json.loads((tmp_path / "train.jsonl").read_text())
    assert written == {"step": 3, "reward": 0.5, "ratio/max": None, "none": None}


def test_a_folder_called_scenes_is_no_input_of_a_warm_start_on_scenes(
    config: WiseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()
    data: Any = SimpleNamespace(fingerprint=lambda: "f")
    validator: Any = SimpleNamespace(data=data)
    warm = replace(config, warm_start=WarmStartConfig(steps=1))
    assert "warm_start.data" not in _inputs(warm, data, validator)
