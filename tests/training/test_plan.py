"""What a training will take is computed from its recipe and its policy's config, as the recipes' comments do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'train'")

from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

from wise_edge.cli.main import main
from wise_edge.policy.answers.frame import PIXELS_XY
from wise_edge.policy.prompts import DEFAULT
from wise_edge.training.common.pace import Pace
from wise_edge.training.plan.parts import TrainingPlan
from wise_edge.training.plan.wise import plan_wise
from wise_edge.training.recipe import find_recipe, load_recipe
from wise_edge.training.wise.policy import StartPolicy

ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
CONFIGS = {
    "wise-qwen2.5-vl-3b-24gb": Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
            "rope_parameters": ROPE,
        },
        vision_config={**VISION, "out_hidden_size": 2048},
        tie_word_embeddings=True,
    ),
    "wise-qwen2.5-vl-7b-qlora-24gb": Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "rope_parameters": ROPE,
        },
        vision_config={**VISION, "out_hidden_size": 3584},
        tie_word_embeddings=False,
    ),
    "wise-qwen3-vl-2b-24gb": Qwen3VLConfig(
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_parameters": ROPE | {"mrope_section": [24, 20, 20], "mrope_interleaved": True},
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "patch_size": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
    ),
}


def plan(recipe: str, folder: Path, **changes: Any) -> TrainingPlan:
    """Plan a recipe for a policy of which there is a config alone."""
    settings = CONFIGS[recipe]
    settings.save_pretrained(folder)
    config = replace(load_recipe(recipe), **changes)
    images = SimpleNamespace(patch_size=settings.vision_config.patch_size, merge_size=2)
    processor = SimpleNamespace(image_processor=images, tokenizer=lambda text: {"input_ids": text.split()})
    start = StartPolicy(str(folder), processor, DEFAULT, config.input_size or 840, "bfloat16", PIXELS_XY)
    return plan_wise(config, start, 1800, Path("run"))


@pytest.mark.parametrize("recipe", CONFIGS)
def test_the_memory_of_a_recipe_is_what_its_comment_derives(recipe: str, tmp_path: Path) -> None:
    found = re.search(r"# At most (\d+) GB at a time", find_recipe(recipe).read_text())
    assert found
    made = plan(recipe, tmp_path)
    assert made.peak_bytes == pytest.approx(float(found[1]) * 1e9, rel=0.1)
    comment = dict(re.findall(r"^#   (\S.*?)  .*?([\d.]+) GB", find_recipe(recipe).read_text(), re.MULTILINE))
    parts = {part.name: part.size_bytes for part in made.memory}
    for name, part in (
        ("adapter, gradient and Adam", "adapter, gradient and Adam"),
        ("writing: keys and values", "keys and values"),
        ("writing: patches, a vision layer", "patches, a layer"),
        ("backward: logits of 512 tokens", "logits"),
    ):
        assert parts[part] == pytest.approx(float(comment[name]) * 1e9, rel=0.15)


def test_more_completions_at_a_time_take_more(tmp_path: Path) -> None:
    recipe = "wise-qwen2.5-vl-3b-24gb"
    usual, more = (plan(recipe, tmp_path, rollouts_at_once=count).peak_bytes for count in (16, 32))
    assert more - usual == pytest.approx(2.4e9, rel=0.1)


def test_all_weights_are_divided_by_the_processes(tmp_path: Path) -> None:
    recipe = "wise-qwen2.5-vl-7b-qlora-24gb"
    changes: dict[str, Any] = {"lora": None, "load_in_4bit": False, "dtype": "float32", "processes": 8}
    made = plan(recipe, tmp_path, **changes, rollouts_at_once=None, vllm="colocate")
    weights, start, vllm, *_ = made.memory
    assert weights.size_bytes == pytest.approx(16.6e9, rel=0.01)
    assert start.size_bytes == pytest.approx(4.15e9, rel=0.01)
    assert (vllm.size_bytes is None) == (vllm.reason is not None)
    assert any("FSDP" in note for note in made.notes)


@pytest.mark.parametrize("recipe", ["wise-embedded", "embedded-sam", "embedded-policy"])
def test_a_dry_run_writes_nothing(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "--recipe", recipe, "--out", str(out), "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing was trained" in told
    assert "memory of each process" in told
    assert not out.exists()
    out.mkdir()
    (out / "recipe.yaml").write_text("stage: sam\n")
    assert main(["train", "--recipe", recipe, "--out", str(out), "--dry-run"]) == 2


def test_a_dry_run_names_a_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", "embedded-sam", "--dry-run"]) == 0
    assert "the trained model will be in runs/embedded-sam/" in " ".join(capsys.readouterr().out.split())
    assert main(["train", "--recipe", "embedded-sam"]) == 2
    assert capsys.readouterr().err == "error: pass the folder of the run, such as --out runs/embedded-sam\n"
    assert list(tmp_path.iterdir()) == []


def test_the_time_left_is_that_of_the_steps_since_the_resumption() -> None:
    now = 100.0
    pace = Pace(10, 30, lambda: now)
    assert pace.left(10) == ""
    now += 120
    assert pace.left(20) == " (about 2 min left)"
    assert pace.left(30) == ""


@pytest.mark.parametrize(
    ("recipe", "model", "next_step"),
    [
        ("embedded-sam", "sam", "wise-edge export --sam run/sam --policy POLICY"),
        ("wise-embedded", "policy", "wise-edge export --policy run/policy --sam SAM"),
    ],
)
def test_the_last_line_says_where_the_model_is(
    recipe: str, model: str, next_step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wise_edge.training.recipe.train_function", lambda _: lambda *_: Path("run") / model)
    assert main(["train", "--recipe", recipe, "--out", "run"]) == 0
    assert f"done: the trained {model} is in run/{model}; next: {next_step} --target gguf" in capsys.readouterr().err
    monkeypatch.setattr("wise_edge.training.recipe.train_function", lambda _: lambda *_: None)
    assert main(["train", "--recipe", recipe, "--out", "run"]) == 0
    assert capsys.readouterr().err == ""
