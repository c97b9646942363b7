"""Training of the policy: what it is fed, its forward pass, its optimizer, its loop and what it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wise_edge.errors import MissingExtraError, UsageError, WiseEdgeError
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.image import patchify, resize
from wise_edge.policy.prompts import EMBEDDED, VARIANTS, PromptSet
from wise_edge.scenes import KINDS, LEVEL_WEIGHTS, sample, target_answer

pytest.importorskip("wise_edge.training.sft", exc_type=MissingExtraError)

import torch
import transformers

from wise_edge.training.common.checkpoints import load_checkpoint, save_checkpoint
from wise_edge.training.common.optimizers import Muon, orthogonalize
from wise_edge.training.common.step_log import read_log
from wise_edge.training.recipe import load_recipe
from wise_edge.training.sft import train as sft
from wise_edge.training.sft.config import PhaseConfig, PolicyModelConfig, SftConfig
from wise_edge.training.sft.data import (
    ATTRIBUTES,
    Batch,
    BatchPools,
    choice_spans,
    dense_targets,
    list_text,
    mixture_at,
    pool_spans,
    stream_batches,
    task_texts,
)
from wise_edge.training.sft.folder import save_policy
from wise_edge.training.sft.generate import generate
from wise_edge.training.sft.heads import build_heads, dense_loss, dense_scores
from wise_edge.training.sft.layers import logits_of
from wise_edge.training.sft.tokenizer import SPECIAL_TOKENS, scene_texts, train_tokenizer
from wise_edge.training.sft.train import Trainer, dense_weight_at, lr_share, train_sft

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

TINY = PolicyModelConfig(
    hidden_size=64,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=64,
    vision_hidden_size=64,
    vision_depth=2,
    vision_heads=2,
    vision_intermediate_size=64,
    vision_fullatt=(1,),
)
CONFIG = SftConfig(
    phases=(
        PhaseConfig("dense", 2, dense_weight=1.0),
        PhaseConfig("list", 3, {"list": 1.0}, dense_weight=0.5),
        PhaseConfig("mix", 3, {"list": 1.0, "answer": 1.0, "wise": 1.0}, dense_weight=0.0, blend_steps=2),
    ),
    model=TINY,
    batch_size=3,
    pool_batches=2,
    tokenizer_samples=60,
    log_every=1,
    checkpoint_every=2,
    validate_every=4,
    validate_samples=2,
    final_samples=3,
    max_new_tokens=6,
    choice_weight=1.0,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(scene_texts(60, 0, 112), 650)


@pytest.fixture(scope="module")
def trainer(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trainer whose norms and biases are random too, so that each of them matters."""
    trainer = Trainer(replace(CONFIG, bfloat16=False), tokenizer, tmp_path_factory.mktemp("run"))
    torch.manual_seed(1)
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return trainer


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sft") / "run"
    train_sft(CONFIG, out, resume=False)
    return out


@pytest.fixture(scope="module")
def text_batch(tokenizer: Any) -> Batch:
    pools = BatchPools(CONFIG, tokenizer)
    return pools[len(pools) - 1][0]


# tokenizer


def test_digits_are_single_tokens_and_text_survives(tokenizer: Any) -> None:
    assert [len(tokenizer.encode(str(digit)).ids) for digit in range(10)] == [1] * 10
    assert len(tokenizer.encode("112").ids) == 3
    for text in ("the small red ring [12, 30, 40, 58]", "圆环 не кольцо 🙂"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tokenizer_is_deterministic_and_knows_the_special_tokens(tokenizer: Any) -> None:
    again = train_tokenizer(scene_texts(60, 0, 112), 650)
    assert again.to_str() == tokenizer.to_str()
    assert [tokenizer.encode(token).ids for token in SPECIAL_TOKENS] == [
        [tokenizer.token_to_id(token)] for token in SPECIAL_TOKENS
    ]


# data


def test_every_step_has_its_batch_and_no_scene_comes_twice(tokenizer: Any) -> None:
    spans = pool_spans(CONFIG)
    assert [step for start, stop in spans for step in range(start, stop)] == list(range(CONFIG.total_steps))
    batches = list(stream_batches(CONFIG, tokenizer, 0))
    assert [batch.step for batch in batches] == list(range(CONFIG.total_steps))
    images = {image.tobytes() for batch in batches for image in batch.images}
    assert len(images) == CONFIG.total_steps * CONFIG.batch_size


def test_batches_after_a_resume_are_the_same(tokenizer: Any) -> None:
    whole = list(stream_batches(CONFIG, tokenizer, 0))
    for start in (3, 4):
        for batch in stream_batches(CONFIG, tokenizer, start):
            for field, value in vars(batch).items():
                assert np.array_equal(value, getattr(whole[batch.step], field)), field


def test_only_the_response_is_weighted_and_digits_count_double(tokenizer: Any, text_batch: Batch) -> None:
    digits = [tokenizer.token_to_id(str(digit)) for digit in range(10)]
    end = tokenizer.token_to_id("<|im_end|>")
    for ids, weights in zip(text_batch.ids, text_batch.weights, strict=True):
        start, stop = int(np.argmax(weights > 0)), len(weights) - int(np.argmax(weights[::-1] > 0))
        assert tokenizer.decode(ids[:start].tolist(), skip_special_tokens=False).endswith("<|im_start|>assistant\n")
        assert ids[stop - 1] == end
        expected = np.where(np.isin(ids[start:stop], digits), CONFIG.digit_weight, 1.0)
        assert weights[start:stop].tolist() == expected.tolist()


def test_tokens_that_name_the_right_object_weigh_more(tokenizer: Any) -> None:
    labeled = sample("train", 11)
    name, place = labeled.target.describe(), labeled.target.place
    text = f"There is a {name} at the {place}. At the {place}, the {name} fits. So it is at the {place}: {name}."
    named = [text[start:stop] for start, stop in choice_spans(labeled, text)]
    assert named == [f"{place}, the {name}", f"{place}: {name}"]
    text = f"The query asks for the only object. The other yellow one is at the {place}: {name}. The only ring is it."
    assert [text[slice(*span)] for span in choice_spans(labeled, text)] == [f"{place}: {name}", "yellow", "ring"]
    phase = PhaseConfig("wise", 2, {"verbose": 1.0})
    batch = BatchPools(replace(CONFIG, phases=(phase,), choice_weight=7.0), tokenizer)[0][0]
    for ids, weights in zip(batch.ids, batch.weights, strict=True):
        heavy = tokenizer.decode(ids[weights == 7.0].tolist())
        assert any(word in heavy for word in ATTRIBUTES["shape"])
        assert not any(digit in heavy for digit in "0123456789")


def test_dense_targets_name_the_object_of_each_cell() -> None:
    for index in range(20):
        labeled = sample("train", index)
        classes, boxes = dense_targets(labeled, 4)
        for item in labeled.scene.objects:
            cell = int(item.center[1] * 4) * 4 + int(item.center[0] * 4)
            owners = [
                other
                for other in labeled.scene.objects
                if int(other.center[1] * 4) * 4 + int(other.center[0] * 4) == cell
            ]
            largest = max(owners, key=lambda other: other.area_px)
            named = [values[i] for values, i in zip(ATTRIBUTES.values(), classes[cell], strict=True)]
            assert named == [largest.shape, largest.color, largest.size, largest.texture]
            assert np.allclose(boxes[cell] * labeled.scene.side, largest.box, atol=1e-3)
        assert (classes[:, 0] >= 0).sum() <= len(labeled.scene.objects)


def test_list_names_every_object_once_in_varying_order() -> None:
    labeled = sample("train", 5)
    texts = {list_text(labeled, Random(seed), 112) for seed in range(20)}
    assert len(texts) > 1
    parts = {tuple(sorted(text.split("; "))) for text in texts}
    assert len(parts) == 1
    target = labeled.target
    assert f"{target.describe()} {list(target_answer(labeled, AnswerFrame((112, 112))).box)}" in parts.pop()


def test_levels_are_drawn_by_the_weights_of_a_phase() -> None:
    phase = PhaseConfig("one", 1, {"wise-s": 1.0}, level_weights={"wise-s": (1, 0, 0, 0)})
    assert phase.level_weights["wise"] == LEVEL_WEIGHTS["wise"], "what is left out stays as the scenes have it"
    labeled = sample("train", 7)
    for seed in range(5):
        _, text = task_texts(labeled, "wise-s", Random(seed), 112, phase.level_weights)
        assert f"<think>{labeled.rationale('concise')}</think>" in text
    for mistake in ({"answer": (1, 1, 1, 1)}, {"wise": (1, 1)}, {"wise": (0, 0, 0, 0)}, {"wise": (1, 1, 1, -1)}):
        with pytest.raises(
            ValueError, match=r"keys are verbose, wise, wise-infer, wise-s; each has a weight|must be from 0 to"
        ):
            PhaseConfig("one", 1, level_weights=mistake)


def test_first_scene_leaves_the_scenes_before_out(tokenizer: Any) -> None:
    taken = [
        {
            image.tobytes()
            for batch in stream_batches(replace(CONFIG, first_scene=first), tokenizer, 0)
            for image in batch.images
        }
        for first in (0, CONFIG.total_steps * CONFIG.batch_size * len(KINDS))
    ]
    assert not taken[0] & taken[1]


def test_mixtures_blend_without_a_jump() -> None:
    phases = (PhaseConfig("a", 10, {"list": 2.0}), PhaseConfig("b", 10, {"list": 1.0, "wise": 3.0}, blend_steps=4))
    config = replace(CONFIG, phases=phases)
    shares = [mixture_at(config, step).get("wise", 0.0) for step in range(10, 16)]
    assert shares[:4] == pytest.approx([0.0, 0.1875, 0.375, 0.5625])
    assert mixture_at(config, 14) == {"list": 1.0, "wise": 3.0}


def test_schedules() -> None:
    assert [dense_weight_at(CONFIG, step) for step in (0, 1, 2)] == [1.0, 1.0, 1.0]
    assert dense_weight_at(CONFIG, 5) == pytest.approx(0.5)
    assert lr_share(CONFIG, 0) == pytest.approx(1 / CONFIG.optimizer.warmup_steps)
    assert lr_share(CONFIG, CONFIG.total_steps) < CONFIG.optimizer.final_lr_share


# forward pass


def test_forward_equals_transformers(trainer: Trainer, text_batch: Batch, tokenizer: Any) -> None:
    ids = torch.from_numpy(text_batch.ids)
    is_image = (ids == tokenizer.token_to_id("<|image_pad|>")).int()
    grid = torch.tensor([[1, 8, 8]] * len(ids))
    with torch.no_grad():
        stock = trainer.model(
            input_ids=ids,
            pixel_values=torch.from_numpy(patchify(text_batch.images)),
            image_grid_thw=grid,
            mm_token_type_ids=is_image,
        ).logits
        states = trainer._forward.last_states(torch.from_numpy(text_batch.images), ids)
        ours = logits_of(trainer.model, states)
    assert (ours - stock).abs().max() < 1e-4 * stock.abs().max()
    positions, _ = trainer.model.model.get_rope_index(ids, is_image, image_grid_thw=grid)
    assert (positions == trainer._prefix.positions(ids.shape[1])[:, None]).all()


def test_greedy_decoding_equals_transformers(trainer: Trainer, text_batch: Batch, tokenizer: Any) -> None:
    prefix = trainer._prefix
    prompts = [[*prefix.ids, *tokenizer.encode(text).ids] for text in ("ring", "the large green star", "one")]
    end = tokenizer.token_to_id("<|im_end|>")
    ours = generate(trainer.model, prefix, torch.from_numpy(text_batch.images), prompts, end, 8)
    for image, prompt, response in zip(text_batch.images, prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        stock = trainer.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.from_numpy(patchify(image)),
            image_grid_thw=torch.tensor([[1, 8, 8]]),
            mm_token_type_ids=(ids == tokenizer.token_to_id("<|image_pad|>")).int(),
            max_new_tokens=8,
            do_sample=False,
        )[0, len(prompt) :].tolist()
        assert response == (stock[: stock.index(end)] if end in stock else stock)


def test_dense_loss_is_least_at_the_truth() -> None:
    labeled = [sample("train", index) for index in range(4)]
    targets = [dense_targets(item, 4) for item in labeled]
    classes = torch.from_numpy(np.stack([target[0] for target in targets]))
    boxes = torch.from_numpy(np.stack([target[1] for target in targets]))
    present = (classes[..., 0] >= 0).float()
    logits = [
        20.0 * torch.nn.functional.one_hot(classes[..., i].clamp(min=0), len(values))
        for i, values in enumerate(ATTRIBUTES.values())
    ]
    truth = torch.cat([40 * present[..., None] - 20, *logits, boxes], dim=-1)
    scores = dense_scores(truth, classes, boxes)
    assert (scores.presence, set(scores.attributes.values()), scores.box_error) == (1.0, {1.0}, 0.0)
    assert dense_loss(truth, classes, boxes) < 1e-3 < dense_loss(truth + torch.randn_like(truth), classes, boxes)
    assert build_heads(8, 0)[0](torch.zeros(1, 8)).shape[-1] == truth.shape[-1]


# optimizer


@pytest.mark.parametrize("shape", [(2, 24, 48), (1, 16, 40), (3, 40, 16)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.3


def test_muon_moves_only_what_has_a_gradient() -> None:
    torch.manual_seed(0)
    first, second = (torch.nn.Parameter(torch.randn(4, 6)) for _ in range(2))
    before = [first.detach().clone(), second.detach().clone()]
    second.grad = torch.randn(4, 6)
    Muon([first, second], momentum=0.9, weight_decay=0.0).step(0.1)
    assert torch.equal(first, before[0])
    assert float((second - before[1]).detach().pow(2).mean().sqrt()) == pytest.approx(0.02, rel=0.4)


# loop


def test_resumed_training_equals_an_uninterrupted_one(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_after(monkeypatch, 3)
    train_sft(CONFIG, tmp_path, resume=False)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path)["step"] == 3  # type: ignore[index]
    (tmp_path / "tokenizer.json").write_text("{")  # of an older version, and torn: the checkpoint has it
    train_sft(CONFIG, tmp_path, resume=True)
    whole, parts = (load_checkpoint(run) for run in (finished_run, tmp_path))
    assert whole is not None and parts is not None
    for name in ("model", "average", "heads"):
        assert all(torch.equal(value, parts[name][key]) for key, value in whole[name].items())
    assert [record["step"] for record in read_log(tmp_path / "train.jsonl")] == list(range(1, 9))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "policy" / name).read_bytes() == (finished_run / "policy" / name).read_bytes()
    last = read_log(finished_run / "validation.jsonl")[-1]
    assert set(last["verbose"]["by_kind"]) <= set(KINDS) and last["samples"] == 3
    assert (finished_run / "curves.png").stat().st_size > 1000
    assert json.loads((finished_run / "policy" / "config.json").read_text())["model_type"] == "qwen2_5_vl"


@pytest.mark.slow
def test_signal_to_the_whole_process_group_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    options = ["--set", "phases=[{name: one, steps: 500, dense_weight: 1.0}]", "--set", "log_every=1"]
    command = [sys.executable, "-m", "wise_edge", "train", "--recipe", "embedded-policy-smoke", "--out", str(tmp_path)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step 3/"))
        os.killpg(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0 and "continue with --resume" in rest
    assert load_checkpoint(tmp_path)["step"] >= 3  # type: ignore[index]


def _stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    def stream(config: SftConfig, tokenizer: Any, start: int) -> Iterator[Batch]:
        for batch in stream_batches(config, tokenizer, start):
            if batch.step == steps - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(sft, "stream_batches", stream)


def test_folder_of_a_run_is_not_overwritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {})
    with pytest.raises(UsageError, match="--resume"):
        train_sft(CONFIG, tmp_path, resume=False)


def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(config: SftConfig, tokenizer: Any, start: int) -> Iterator[Batch]:
        for batch in stream_batches(config, tokenizer, start):
            yield replace(batch, boxes=batch.boxes * np.nan) if batch.step == 2 else batch

    monkeypatch.setattr(sft, "stream_batches", stream)
    with pytest.raises(WiseEdgeError, match="not finite at step 3"):
        train_sft(CONFIG, tmp_path, resume=False)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 2
    assert all(bool(value.isfinite().all()) for value in state["model"].values())


def test_torn_checkpoint_is_skipped_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path, 1, {"x": torch.zeros(2)})
    torn = save_checkpoint(tmp_path, 2, {"x": torch.ones(2)})
    torn.write_bytes(torn.read_bytes()[:200])
    state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 1
    assert torn.name in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "nothing") is None


@pytest.mark.slow
def test_smoke_recipe_learns(tmp_path: Path) -> None:
    config = load_recipe("embedded-policy-smoke")
    assert isinstance(config, SftConfig)
    train_sft(config, tmp_path, resume=False)
    log = read_log(tmp_path / "train.jsonl")
    by_stage = {stage: [record for record in log if record["stage"] == stage] for stage in ("dense", "list", "mix")}
    assert by_stage["dense"][-1]["language"] < 0.9 * by_stage["dense"][0]["language"]
    assert by_stage["list"][-1]["text"] < 0.8 * by_stage["list"][0]["text"]


def test_training_continues_from_a_policy(finished_run: Path, tmp_path: Path) -> None:
    policy = finished_run / "policy"
    settled = replace(CONFIG.optimizer, muon_lr=0.0, adamw_lr=0.0)
    on = replace(CONFIG, start=str(policy), optimizer=settled, tokenizer_samples=1, seed=CONFIG.seed + 1)
    train_sft(on, tmp_path, resume=False)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "policy" / name).read_bytes() == (policy / name).read_bytes()


def test_policy_that_does_not_fit_is_named(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^start: .*nothing does not exist; pass a checkpoint"):
        train_sft(replace(CONFIG, start=str(tmp_path / "nothing")), tmp_path / "run", resume=False)
    wider = replace(CONFIG, start=str(finished_run / "policy"), model=replace(TINY, vision_depth=TINY.vision_depth + 1))
    with pytest.raises(UsageError, match=r"start: .* does not fit the recipe's model"):
        train_sft(wider, tmp_path / "wider", resume=False)


# the folder


def test_saved_policy_loads_with_transformers(trainer: Trainer, tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    save_policy(trainer.model, tokenizer, CONFIG, folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert model.dtype == torch.float16
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.half()), name
    assert model.generation_config.eos_token_id == tokenizer.token_to_id("<|im_end|>")
    assert PromptSet.from_dict(json.loads((folder / "prompts.json").read_text())).to_dict() == EMBEDDED.to_dict()
    for variant in VARIANTS:
        _assert_processor_renders_our_prompt(processor, tokenizer, variant)


def _assert_processor_renders_our_prompt(processor: Any, tokenizer: Any, variant: str) -> None:
    labeled = sample("validation", 1)
    image = resize(labeled.scene.image, (112, 112))
    messages = EMBEDDED.messages(labeled.request, variant, {"type": "image"})
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.fromarray(image)], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == tokenizer.encode(EMBEDDED.render(labeled.request, variant, 16)).ids
    assert np.allclose(inputs["pixel_values"], patchify(image), atol=1e-5)
