"""Parts of the WISE training that need no model: config, checkpoints, the best policy, samples and demonstrations."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from damage import flip_bit
from own_files import write_table
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.scenes import sample

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

import torch

from wise_edge.training.common.step_log import drop_records_after
from wise_edge.training.recipe import load_recipe, recipe_names
from wise_edge.training.wise.arguments import grpo_arguments, lora_config, trackers
from wise_edge.training.wise.best import BestPolicy
from wise_edge.training.wise.checkpoints import (
    checkpoint_name,
    drop_old_checkpoints,
    is_sound,
    newest_checkpoint,
    publish,
    seal,
    staging_folder,
)
from wise_edge.training.wise.config import DataConfig, LoraOptions, WiseConfig
from wise_edge.training.wise.data import Selection, training_rows
from wise_edge.training.wise.policy import open_policy
from wise_edge.training.wise.report import draw_wise_curves, save_samples
from wise_edge.training.wise.reward_config import ORDERS
from wise_edge.training.wise.trainer import keep_adapter_precise
from wise_edge.training.wise.validation import Figures
from wise_edge.training.wise.warm_start import read_demonstrations, write_completion

WISE_RECIPES = [name for name in recipe_names() if name.startswith("wise-")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollouts=1", "rollouts: must be from 2 to"),
        ("prompts_per_step=3", "is not a multiple of processes x rollouts_per_device"),
        ("rollouts_at_once=32", "rollouts_at_once: must be a multiple of rollouts_per_device = 64"),
        ("order=answer-first", "order: choose one of concise-first"),
        ("dtype=bfloat16", "dtype: without lora"),
        ("load_in_4bit=true", "load_in_4bit: 4-bit weights cannot be trained"),
        ("vllm=always", "vllm: choose one of off"),
        ("lora.rank=0", "lora.rank: must be from 1 to"),
        ("data.samples=null", "data.samples: scenes are endless"),
        ("warm_start={steps: 0}", "warm_start.steps: must be from 1 to"),
        ("warm_start={steps: 1, data: a.csv}", "warm_start.data: is 'scenes' or a .jsonl file"),
        ("rewards.weights.style=1", "rewards.weights.style: unknown term"),
    ],
)
def test_mistake_in_a_recipe_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("wise-embedded", ["rollouts_per_device=64", override])
    assert message in str(caught.value)


def test_variant_that_the_policy_has_no_words_for_is_named() -> None:
    recipe: Any = load_recipe("wise-embedded", ["validation.variants=[brief]"])
    with pytest.raises(UsageError, match="unknown variant 'brief'"):
        open_policy(recipe)


@pytest.mark.parametrize("name", WISE_RECIPES)
def test_recipe_shares_its_rollouts_out_evenly(name: str) -> None:
    config = load_recipe(name)
    assert isinstance(config, WiseConfig)
    assert config.accumulation_steps * config.processes * config.rollouts_per_device == config.batch_size
    assert config.batch_size == config.prompts_per_step * config.rollouts


def test_rollouts_are_written_a_few_at_a_time() -> None:
    config = load_recipe("wise-qwen2.5-vl-3b-24gb")
    assert isinstance(config, WiseConfig) and config.rollouts_at_once == 16
    assert grpo_arguments(config, Path("run"), [1.0], validate_first=True).generation_batch_size == 16


def test_rows_come_in_a_new_order_each_round_and_depend_on_their_index_alone() -> None:
    source = open_policy(load_recipe("wise-embedded"))  # type: ignore[arg-type]

    def take(places: range, seed: int = 0) -> list[str]:
        data = Selection(DataConfig("train", samples=5), "data")
        rows = training_rows(data, source, "concise-first", 15, seed)
        return [rows[place]["sample"] for place in places]

    whole = take(range(15))
    rounds = [whole[:5], whole[5:10], whole[10:]]
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds) and len(set(rounds[0])) == 5
    assert rounds[0] != rounds[1] and take(range(8, 15)) == whole[8:]
    assert take(range(15), seed=1) != whole


def test_one_s_own_table_is_trained_on(tmp_path: Path) -> None:
    file, items = write_table(tmp_path, 3)
    source = open_policy(load_recipe("wise-embedded"))  # type: ignore[arg-type]
    data = Selection(DataConfig("mine", name="table", path=str(file)), "data")
    rows = training_rows(data, source, "concise-first", 3, 0)
    boxes = {row["sample"]: row["box"] for row in (rows[place] for place in range(3))}
    for place, item in enumerate(items, 2):
        half = [edge // 2 for edge in item.box]  # the policy sees 112 of 224 px
        assert all(abs(edge - other) <= 1 for edge, other in zip(boxes[str(place)], half, strict=True))


@pytest.mark.parametrize(("name", "kind"), [("reasonseg", "folder"), ("table", "file"), ("coco", "file")])
def test_data_that_is_read_needs_a_path(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"^path: {name} is read from files; name its {kind}$"):
        DataConfig("train", name=name)


def test_trained_weights_become_float32_and_frozen_ones_stay() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2, dtype=torch.bfloat16) for name in ("base", "adapter")})
    model["base"].requires_grad_(False)
    keep_adapter_precise(model)
    assert model["adapter"].weight.dtype == torch.float32 and model["base"].weight.dtype == torch.bfloat16


def test_records_after_the_checkpoint_are_dropped_torn_lines_too(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    drop_records_after(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
    drop_records_after(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()


def write_checkpoint(out: Path, step: int, text: str = "weights") -> Path:
    folder = staging_folder(out) / checkpoint_name(step)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    publish(out, folder.name)
    return out / folder.name


def test_checkpoint_appears_whole_and_the_newest_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        write_checkpoint(tmp_path, step)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    drop_old_checkpoints(tmp_path, 100, 2)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-100"]


def test_what_was_not_published_is_no_checkpoint(tmp_path: Path) -> None:
    (staging_folder(tmp_path) / "checkpoint-5").mkdir(parents=True)
    assert newest_checkpoint(tmp_path) is None


def test_damaged_checkpoint_of_a_later_step_does_not_count_among_those_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write_checkpoint(tmp_path, step)
    drop_old_checkpoints(tmp_path, 10, 1)  # the run goes on from 10, since 15 is damaged
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-15"]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": lambda folder: (folder / "model.safetensors").write_text("wei") and None,
    "flipped": lambda folder: flip_bit(folder / "model.safetensors"),
    "lost": lambda folder: (folder / "model.safetensors").unlink(),
    "unsealed": lambda folder: (folder / "sha256.json").unlink(),
    "seal": lambda folder: (folder / "sha256.json").write_text("[]") and None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_skipped_with_a_warning(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, damaged = write_checkpoint(tmp_path, 5), write_checkpoint(tmp_path, 10)
    DAMAGES[damage](damaged)
    assert newest_checkpoint(tmp_path) == sound
    assert f"{damaged} is damaged and was skipped" in capsys.readouterr().err
    DAMAGES[damage](sound)
    with pytest.raises(UsageError, match=r"every checkpoint in .* is damaged"):  # and the run does not begin again
        newest_checkpoint(tmp_path)


def test_sealed_folder_knows_what_it_was_made_from(tmp_path: Path) -> None:
    source, other = write_checkpoint(tmp_path, 5), write_checkpoint(tmp_path, 10, "others")
    made = tmp_path / "policy"
    made.mkdir()
    (made / "model.safetensors").write_text("merged")
    seal(made, source)
    assert is_sound(made) and is_sound(made, source) and not is_sound(made, other)
    seal(made)
    assert is_sound(made) and not is_sound(made, source)


def figures(ciou: float, tokens: float) -> dict[str, Figures]:
    return {"wise-s": Figures(ciou, ciou, ciou, 1.0, tokens)}


def keep(best: BestPolicy, step: int, ciou: float, tokens: float) -> None:
    best.staged.mkdir(parents=True, exist_ok=True)
    (best.staged / "step").write_text(str(step))
    best.keep(step, figures(ciou, tokens))


def judge(best: BestPolicy, step: int, ciou: float, tokens: float) -> bool:
    better = best.beats(step, figures(ciou, tokens))
    if better:
        keep(best, step, ciou, tokens)
    else:
        best.reject(step, figures(ciou, tokens))
    return better


def test_better_masks_win_and_among_equals_fewer_tokens(tmp_path: Path) -> None:
    best = BestPolicy(tmp_path, 0.005)
    assert best.beats(0, figures(0.1, 500))
    keep(best, 0, 0.6012, 40)
    assert best.beats(1, figures(0.61, 90))
    assert best.beats(1, figures(0.6004, 30))
    assert not best.beats(1, figures(0.6004, 40))
    assert not best.beats(1, figures(0.59, 1))
    keep(best, 7, 0.61, 90)
    assert (best.folder / "step").read_text() == "7"
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 7


def test_best_policy_cannot_slide_down_by_small_losses(tmp_path: Path) -> None:
    best, ciou, tokens = BestPolicy(tmp_path, 0.005), 0.6, 100
    for step in range(20):
        judge(best, step, ciou, tokens)
        ciou, tokens = ciou - 0.001, tokens - 1
    assert json.loads((tmp_path / "best.json").read_text())["ciou"] > 0.59


def test_height_of_a_policy_that_was_not_kept_counts(tmp_path: Path) -> None:
    best = BestPolicy(tmp_path, 0.005)
    assert judge(best, 0, 0.600, 40)
    assert not judge(best, 1, 0.604, 90)
    assert not best.beats(2, figures(0.598, 30))
    assert best.beats(2, figures(0.6, 30))


VALIDATIONS = [(0.60, 30), (0.61, 40), (0.625, 100), (0.59, 90)]
"""cIoU and tokens of steps; with a tolerance of 0.02, step 2 is kept, but step 1 would win if judged after it."""


@pytest.mark.parametrize(("last", "resumed"), [(last, resumed) for last in range(5) for resumed in range(last + 1)])
def test_resumed_run_keeps_the_policy_of_the_whole_one(last: int, resumed: int, tmp_path: Path) -> None:
    def validate(best: BestPolicy, steps: range) -> None:
        for step in steps:
            judge(best, step, *VALIDATIONS[step])

    whole, cut = BestPolicy(tmp_path / "whole", 0.02), BestPolicy(tmp_path / "cut", 0.02)
    validate(whole, range(4))
    validate(cut, range(last))
    validate(cut, range(resumed, 4))
    assert json.loads((tmp_path / "whole" / "best.json").read_text())["step"] == 2
    assert (tmp_path / "cut" / "best.json").read_bytes() == (tmp_path / "whole" / "best.json").read_bytes()
    assert (cut.folder / "step").read_text() == "2"


def test_kill_between_the_best_policy_and_its_record_mixes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = BestPolicy(tmp_path, 0.02)
    judge(best, 0, 0.5, 30)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("wise_edge.training.wise.best.atomic_write", lambda *_, **__: sys.exit(9))
        judge(best, 1, 0.6, 20)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 0 and (best.folder / "step").read_text() == "1"
    assert not judge(best, 1, 0.6, 20)  # the resumed run repeats the step
    assert json.loads((tmp_path / "best.json").read_text()) == json.loads((best.folder / "figures.json").read_text())


def test_after_a_change_of_the_recipe_later_policies_are_judged_again(tmp_path: Path) -> None:
    best = BestPolicy(tmp_path, 0.02)
    for step in range(3):
        judge(best, step, 0.5, 30 - step)
    assert not best.beats(2, figures(0.7, 30))
    best.judge_again_after(1)
    assert best.beats(2, figures(0.7, 30)) and not best.beats(1, figures(0.7, 30))


def test_samples_are_saved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "samples" / "step-00003.jsonl"
    save_samples(path, ["train-1", "train-1"], ["<think>a [b]</think>", "c"], {"format": [1.0, 0.0]})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {"sample": "train-1", "rewards": {"format": 1.0}, "completion": "<think>a [b]</think>"}
    shown = capsys.readouterr()
    assert "a [b]" in shown.err and "1.00" in shown.err and shown.out == ""


def test_curves_are_drawn_from_the_logs(tmp_path: Path) -> None:
    steps = [{"step": i, "rewards/format/mean": 1.0, "rationale_tokens": 50 - i} for i in range(1, 5)]
    points = [{"step": i, "wise-s": figures(0.5, 20)["wise-s"].__dict__, "seconds": 1} for i in (0, 4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in points))
    draw_wise_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 1000


@pytest.mark.parametrize("order", ORDERS)
def test_demonstration_has_the_parts_of_its_order(order: str) -> None:
    text = write_completion(sample("train", 3), order, Random(0), AnswerFrame((112, 112)))
    places = [text.index(f"<{tag}>") for tag in ORDERS[order]]
    assert places == sorted(places) and places[0] == 0
    parts = split_completion(text)
    assert (parts.detailed is None) == (order == "no-detailed")
    assert parts.rationale and parts.answer_text


def write_lines(folder: Path, *records: Any) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    file = folder / "shown.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_demonstrations_are_read_from_a_file(tmp_path: Path) -> None:
    file = write_lines(tmp_path, {"image": "a.png", "query": "the ring", "completion": "<think>…</think>"})
    assert read_demonstrations(file)[0]["image"] == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "a.png", "query": "the ring"}, "line 1 has no text 'completion'"),
        ({"image": "b.png", "query": "the ring", "completion": "x"}, "line 1: the image"),
        ([1], "line 1 does not hold a JSON object; fix the line"),
    ],
)
def test_bad_demonstration_is_named(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_demonstrations(write_lines(tmp_path, record))
    assert message in str(caught.value)


def test_missing_or_empty_demonstrations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*; set warm_start\.data"):
        read_demonstrations(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="has no demonstrations"):
        read_demonstrations(write_lines(tmp_path))


def test_trackers_are_used_where_they_are_installed() -> None:
    assert trackers(("json", "no_such_tracker")) == ["json"]


def test_adapter_leaves_the_vision_tower_alone() -> None:
    pattern = re.compile(lora_config(LoraOptions()).target_modules)
    assert pattern.match("model.language_model.layers.0.self_attn.q_proj")
    assert not pattern.match("model.visual.blocks.0.mlp.gate_proj")
    assert not pattern.match("lm_head")
