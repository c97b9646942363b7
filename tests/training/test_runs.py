"""The folder of a run: written by one process, and continued as what it began as."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.common.run import hold_run, identify_run
from wise_edge.training.recipe import load_recipe, recipe_names
from wise_edge.training.sam.config import SamConfig
from wise_edge.training.sft.config import SftConfig

SAM = SamConfig(steps=6, decay_steps=2)


def test_accepting_changes_goes_with_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "embedded-sam-smoke", "--out", str(tmp_path / "run"), "--accept-changes"]) == 2
    assert "needs --resume" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_held_by_one_process_and_begun_once(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    with hold_run(out, resume=False), pytest.raises(UsageError, match="another process"), hold_run(out, resume=False):
        pass
    with hold_run(out, resume=False):
        identify_run(SAM, out, None, {})
    with pytest.raises(UsageError, match="--resume"), hold_run(out, resume=False):
        pass
    with hold_run(out, resume=True):
        pass


def test_what_changes_no_step_may_change_and_is_saved(tmp_path: Path) -> None:
    identify_run(SAM, tmp_path, None, {})
    longer = replace(SAM, steps=8, threads=2, log_every=1, final_scenes=3)
    identify_run(longer, tmp_path, 6, {})
    assert load_recipe(str(tmp_path / "recipe.yaml")) == longer


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: replace(c, seed=1), "seed was 0 and is 1"),
        (lambda c: replace(c, optimizer=replace(c.optimizer, muon_lr=0.1)), "optimizer.muon_lr was "),
        (lambda c: replace(c, model=replace(c.model, num_layers=6)), "model.num_layers was 5 and is 6"),
        (lambda c: replace(c, start="embedded"), "start was None and is embedded"),
        (lambda c: replace(c, kind_weights={**c.kind_weights, "relation": 9.0}), "kind_weights.relation was "),
        (lambda c: replace(c, phases=(replace(c.phases[0], steps=1), *c.phases[1:])), "phases.0.steps was"),
        (lambda c: replace(c, phases=c.phases[:1]), "phases.1.name was"),
        (lambda _: SAM, "stage was sft and is sam"),
    ],
)
def test_another_recipe_is_refused_by_its_keys_unless_accepted(
    tmp_path: Path, change: Callable[[SftConfig], Any], line: str
) -> None:
    config = load_recipe("embedded-policy")
    identify_run(config, tmp_path, None, {})
    before = (tmp_path / "recipe.yaml").read_bytes()
    other = change(config)
    with pytest.raises(UsageError) as refused:
        identify_run(other, tmp_path, 4, {})
    assert line in str(refused.value) and "--accept-changes" in str(refused.value) and "\n" not in str(refused.value)
    assert (tmp_path / "recipe.yaml").read_bytes() == before
    identify_run(other, tmp_path, 4, {}, accept_changes=True)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == other
    (made,) = json.loads((tmp_path / "run.json").read_text())["changes"]
    assert made["step"] == 4 and any(line in change for change in made["changes"])


def test_without_a_checkpoint_a_run_begins_with_any_recipe(tmp_path: Path) -> None:
    identify_run(SAM, tmp_path, None, {})
    identify_run(replace(SAM, seed=1), tmp_path, None, {})
    assert load_recipe(str(tmp_path / "recipe.yaml")) == replace(SAM, seed=1)


@pytest.mark.parametrize("text", [None, "", "stage: sa", "stage: sam\nsteps: 6\ncolor: 1\n"])
def test_a_recipe_that_is_torn_or_gone_is_refused(tmp_path: Path, text: str | None) -> None:
    identify_run(SAM, tmp_path, None, {})
    if text is None:
        (tmp_path / "recipe.yaml").unlink()
    else:
        (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml can no longer be read"):
        identify_run(SAM, tmp_path, 3, {})


def test_an_input_whose_content_changed_is_refused(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "model.safetensors").write_bytes(bytes(6 << 20))
    identify_run(SAM, tmp_path, None, {"start": start})
    (start / ".cache").mkdir()
    (start / ".cache" / "download.lock").touch()
    identify_run(SAM, tmp_path, 3, {"start": start})
    (start / "model.safetensors").write_bytes(bytes(range(256)) * (6 << 12))
    with pytest.raises(UsageError, match="the files of start have changed"):
        identify_run(SAM, tmp_path, 3, {"start": start})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"versions": 3}', '{"changes": [{"step": "x"}]}', '{"color": 1}'])
def test_a_record_that_is_torn_is_refused_unless_accepted(tmp_path: Path, text: str) -> None:
    identify_run(SAM, tmp_path, None, {})
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json can no longer be read"):
        identify_run(SAM, tmp_path, 3, {})
    identify_run(SAM, tmp_path, 3, {}, accept_changes=True)
    identify_run(SAM, tmp_path, 3, {})


@pytest.mark.parametrize("name", ["train.jsonl", "policy"])
def test_files_that_are_no_runs_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.txt").touch()  # stderr of this very command, for example
    with hold_run(tmp_path, resume=False):
        pass
    (tmp_path / name).mkdir()
    for resume in (False, True):
        with pytest.raises(UsageError, match="would replace"), hold_run(tmp_path, resume=resume):
            pass


@pytest.mark.parametrize("name", ["bundle.json", "config.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_a_model_takes_no_run(tmp_path: Path, name: str, resume: bool) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="holds a model"), hold_run(tmp_path, resume=resume):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_another_version_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identify_run(SAM, tmp_path, None, {})
    identify_run(SAM, tmp_path, 3, {})
    assert not capsys.readouterr().err
    record = json.loads((tmp_path / "run.json").read_text())
    record["versions"]["torch"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(record))
    identify_run(SAM, tmp_path, 3, {})
    assert "since torch 1.0 is now 2." in capsys.readouterr().err


@pytest.mark.parametrize("name", recipe_names())
def test_the_keys_that_may_change_are_the_recipes(name: str) -> None:
    config: Any = load_recipe(name)
    assert all(hasattr(config, key.split(".")[0]) for key in config.changeable)
