"""The policies that people let a training start from: judged as everywhere, before anything is loaded or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

import safetensors.torch
import torch
import transformers

from tiny_qwen import make_qwen, save_qwen
from wise_edge.policy.answers.conventions import Conventions, read_conventions, write_conventions
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import PER_MILLE, PIXELS_XY, YX, AnswerFrame, Coordinates
from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.prompts import DEFAULT, EMBEDDED
from wise_edge.training.recipe import load_recipe
from wise_edge.training.wise.policy import StartPolicy, _check_hub, open_policy, save_side_files
from wise_edge.training.wise.trainer import keep_generation_config_savable

TEMPLATE = "{% for message in messages %}{{ message.role }}{% endfor %}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_qwen(make_qwen("qwen2_5_vl"), tmp_path_factory.mktemp("start") / "whole", torch.bfloat16)
    edit(folder / "preprocessor_config.json", image_processor_type="Qwen2VLImageProcessor")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def policy(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    shutil.copytree(whole, folder)
    return folder


def edit(file: Path, **entries: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | entries))


def test_a_policy_of_a_hub_out_of_reach_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    advice = "hf download nobody/none --local-dir none, then add --set model=none"
    with pytest.raises(UsageError, match=rf"not in the hub's cache, and the hub cannot be reached \(.*{advice}"):
        start(Path("nobody/none"))
    assert "Retry" not in caplog.text


def test_a_policy_in_the_hubs_cache_is_read_without_the_hub(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--nobody--none"
    shutil.copytree(whole, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _check_hub("nobody/none")


def start(folder: Path) -> StartPolicy:
    config: Any = load_recipe("wise-embedded")
    return open_policy(replace(config, model=str(folder), input_size=None))


def as_pickle(folder: Path) -> None:
    file = folder / "model.safetensors"
    torch.save(safetensors.torch.load_file(file), folder / "pytorch_model.bin")
    file.unlink()


def as_transformers_5(folder: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()


def template_of_the_tokenizer(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATE)


def template_of_the_processor(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder / "chat_template.json", chat_template=TEMPLATE)


FORMS = [as_pickle, as_transformers_5, template_of_the_tokenizer, template_of_the_processor]


@pytest.mark.parametrize("change", FORMS)
def test_a_training_starts_from_every_form_of_a_policy(policy: Path, change: Callable[[Path], None]) -> None:
    change(policy)
    opened = start(policy)
    assert (opened.input_size, opened.dtype, opened.prompts) == (112, "bfloat16", EMBEDDED)
    assert opened.processor.image_processor.size["longest_edge"] == 112 * 112
    assert opened.processor.apply_chat_template(opened.messages("the ring", "wise-s"), tokenize=False) == "systemuser"
    save_side_files(opened, policy.with_name("saved"))
    assert (policy.with_name("saved") / "chat_template.jinja").read_text() == TEMPLATE


def test_a_policy_without_prompts_gets_the_default_wording_and_the_square_its_processor_allows(policy: Path) -> None:
    (policy / "prompts.json").unlink()
    edit(policy / "preprocessor_config.json", size={"shortest_edge": 3136, "longest_edge": 512 * 28 * 28})
    opened = start(policy)
    assert opened.prompts == DEFAULT and opened.input_size == 616


def quantize(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def as_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("model_world_size_8_rank_0.pt", "fsdp_config.json"):
        (folder.parent / name).write_bytes(b"{}")


def as_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def drop_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def cut_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text()[:1000])


def other_patches(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", patch_size=16)


ODD = {
    "tokenizer": (drop_tokenizer, r"its tokenizer lacks <\|im_start\|>"),
    "cut": (cut_tokenizer, "Unterminated string"),
    "template": (drop_template, "it has no chat template; copy"),
    "patches": (other_patches, "patch_size is 16, but the model's"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_the_processor_lacks_is_named_before_anything_is_loaded(policy: Path, case: str) -> None:
    change, words = ODD[case]
    change(policy)
    with pytest.raises(UsageError, match=words) as caught:
        start(policy)
    assert "\n" not in str(caught.value)


FOREIGN = {
    "quantized": (quantize, "weights are quantized (bitsandbytes, 4 bits)"),
    "shards": (as_shards, "--target hf --out MERGED"),
    "pointer": (as_pointer, "git lfs pull"),
    "absent": (shutil.rmtree, "policy"),
}


@pytest.mark.parametrize("recipe", ["wise-embedded", "embedded-policy-smoke"])
@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_policy_is_refused_before_a_run_is_made(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, case: str
) -> None:
    change, words = FOREIGN[case]
    folder = policy.rename(tmp_path / "huggingface")
    change(folder)
    key = "model" if recipe.startswith("wise") else "start"
    code = main(["train", "--recipe", recipe, "--out", str(tmp_path / "run"), "--set", f"{key}={folder}"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_generation_config_that_contradicts_itself_can_be_saved_after_the_trainer_changed_it(
    policy: Path, tmp_path: Path
) -> None:
    edit(policy / "generation_config.json", do_sample=False, temperature=0.1, top_p=0.5)

    def load() -> Any:
        return transformers.AutoModelForImageTextToText.from_pretrained(policy)

    model = load()
    model.generation_config.pad_token_id = 3
    with pytest.raises(ValueError, match="invalid"):  # or the mending would be for nothing
        model.save_pretrained(tmp_path / "lost")

    model = load()
    keep_generation_config_savable(model)
    model.generation_config.pad_token_id = 3
    model.save_pretrained(tmp_path / "kept")
    saved = transformers.GenerationConfig.from_pretrained(tmp_path / "kept")
    expected = json.loads((policy / "generation_config.json").read_text())["eos_token_id"]
    assert (saved.eos_token_id, saved.pad_token_id, saved.temperature) == (expected, 3, None)


def test_a_policy_goes_on_with_its_coordinates_and_says_so(policy: Path) -> None:
    opened = start(policy)
    assert opened.coordinates == PIXELS_XY and opened.frame == AnswerFrame((112, 112))
    write_conventions(policy, Conventions(Coordinates(PER_MILLE, YX)))
    opened = start(policy)
    assert opened.frame == AnswerFrame((1000, 1000), YX)
    saved = policy.with_name("saved")
    save_side_files(opened, saved)
    written = read_conventions(saved)
    assert written == Conventions(Coordinates(PER_MILLE, YX), PictureGeometry.square(112), BOX_POINTS)


def test_a_stock_policy_is_trained_in_the_coordinates_of_its_family(policy: Path) -> None:
    (policy / "prompts.json").unlink()
    edit(policy / "preprocessor_config.json", size={"shortest_edge": 3136, "longest_edge": 512 * 28 * 28})
    write_conventions(policy, Conventions(Coordinates(PER_MILLE)))
    opened = start(policy)
    assert "from 0 to 1000 of the picture's width and height" in opened.training_wording("concise-first")
    assert "0 to 1000" in opened.training_wording("detailed-first")
