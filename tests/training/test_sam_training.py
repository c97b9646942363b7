"""Training of SAM: what it is fed, its forward pass, its loop, and the weights that came out of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from locations import ASSETS
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.sam.segment_anything import SamArchitecture, build_sam, read_architecture, save_sam
from wise_edge.scenes import sample

pytest.importorskip("wise_edge.training.sam", exc_type=MissingExtraError)

import torch

from wise_edge.sam.checkpoint import load_segmenter
from wise_edge.training.common.step_log import read_log
from wise_edge.training.recipe import load_recipe
from wise_edge.training.sam.config import JitterConfig, SamConfig
from wise_edge.training.sam.data import SamBatch, jitter_prompts, make_batch
from wise_edge.training.sam.forward import predict
from wise_edge.training.sam.loss import mask_ious, sam_loss
from wise_edge.training.sam.train import lr_share, train_sam
from wise_edge.training.sam.validation import validate_sam

EMBEDDED = ASSETS / "embedded-sam"
TINY = SamArchitecture(
    input_size=56, encoder_dim=16, encoder_depth=2, global_attention=(1,), prompt_dim=16, decoder_heads=2
)


@pytest.fixture(scope="module")
def tiny_batch() -> SamBatch:
    return make_batch("train", range(3), 56)


def tiny_config(**changes: Any) -> SamConfig:
    config = SamConfig(steps=6, decay_steps=2, model=TINY, scenes_per_step=2, checkpoint_every=3, final_scenes=2)
    return replace(config, warmup_steps=2, log_every=1, validate_every=3, validate_scenes=2, **changes)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sam") / "run"
    train_sam(tiny_config(), out, resume=False)
    return out


def test_every_object_of_a_scene_is_a_prompt(tiny_batch: SamBatch) -> None:
    scenes = [sample("train", index, 56).scene for index in range(3)]
    assert tiny_batch.owners.tolist() == [i for i, scene in enumerate(scenes) for _ in scene.objects]
    assert tiny_batch.boxes is not None and tiny_batch.points is not None
    assert tiny_batch.boxes.tolist() == [list(item.box) for scene in scenes for item in scene.objects]
    for mask, points in zip(tiny_batch.masks, tiny_batch.points.astype(int), strict=True):
        assert all(mask[y, x] for x, y in points)


def test_a_part_of_a_batch_keeps_whole_scenes(tiny_batch: SamBatch) -> None:
    part = tiny_batch.part(1, 3)
    rows = tiny_batch.owners >= 1
    assert (part.images == tiny_batch.images[1:]).all()
    assert (part.masks == tiny_batch.masks[rows]).all()
    assert (part.owners == tiny_batch.owners[rows] - 1).all()
    assert len(part.shapes) == rows.sum()


def test_jitter_stays_within_its_limits_and_the_image(tiny_batch: SamBatch) -> None:
    config = JitterConfig(box_px=3, point_px=2, wide_box_px=5, wide_point_px=4, box_only_share=0, points_only_share=0)
    for seed in range(20):
        jittered = jitter_prompts(tiny_batch, config, np.random.default_rng(seed))
        assert jittered.boxes is not None and jittered.points is not None
        assert np.abs(jittered.boxes - tiny_batch.boxes).max() <= 6  # 5, and 1 more where a box would vanish
        assert np.abs(jittered.points - tiny_batch.points).max() <= 4
        assert jittered.boxes.min() >= 0 and jittered.boxes[:, :2].max() < 56 and jittered.points.max() < 56
        assert (jittered.boxes[:, :2] < jittered.boxes[:, 2:]).all()


def test_some_steps_leave_one_kind_of_prompt_out(tiny_batch: SamBatch) -> None:
    config = JitterConfig(box_only_share=0.3, points_only_share=0.3)
    jittered = [jitter_prompts(tiny_batch, config, np.random.default_rng(seed)) for seed in range(60)]
    kinds = [(batch.boxes is not None, batch.points is not None) for batch in jittered]
    assert set(kinds) == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize("prompt", ["both", "box", "points"])
def test_the_batched_forward_equals_segment_anything(tiny_batch: SamBatch, prompt: str) -> None:
    batch = replace(tiny_batch, boxes=None if prompt == "points" else tiny_batch.boxes)
    batch = replace(batch, points=None if prompt == "box" else batch.points)
    torch.manual_seed(1)
    sam = build_sam(TINY)
    with torch.no_grad():
        logits, scores = predict(sam, batch)
    records = []
    for scene, image in enumerate(batch.images):
        rows = batch.owners == scene
        record = {"image": torch.from_numpy(image).permute(2, 0, 1), "original_size": (56, 56)}
        if batch.boxes is not None:
            record["boxes"] = torch.from_numpy(batch.boxes[rows])
        if batch.points is not None:
            record["point_coords"] = torch.from_numpy(batch.points[rows])
            record["point_labels"] = torch.ones(int(rows.sum()), 2)
        records.append(record)
    stock = sam(records, multimask_output=False)
    expected = torch.cat([output["low_res_logits"][:, 0] for output in stock])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores, torch.cat([output["iou_predictions"][:, 0] for output in stock]))


def test_the_loss_is_small_for_the_truth_and_large_for_its_opposite() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    logits = 40.0 * (mask[:, ::2, ::2].float() - 0.5)  # half the size, where the loss is taken
    right = sam_loss(logits, torch.ones(1), mask)
    wrong = sam_loss(-logits, torch.ones(1), mask)
    assert sum(right.values()) < 1e-3
    assert all(wrong[name] > 0.5 for name in ("bce", "edge", "dice", "iou"))


def test_mask_ious_of_overlapping_equal_and_empty_masks() -> None:
    a = torch.tensor([[[1, 1, 0]], [[0, 1, 0]], [[0, 0, 0]]]).bool()
    b = torch.tensor([[[0, 1, 1]], [[0, 1, 0]], [[0, 0, 0]]]).bool()
    assert mask_ious(a, b).tolist() == pytest.approx([1 / 3, 1, 1])


def test_learning_rates_warm_up_hold_and_decay_and_a_longer_run_only_holds_longer() -> None:
    config = SamConfig(steps=100, decay_steps=20, warmup_steps=10)
    assert [lr_share(config, step) for step in (0, 9, 50, 80, 90, 99)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0.05])
    longer = replace(config, steps=200)
    assert all(lr_share(longer, step) == lr_share(config, step) for step in range(81))


def test_resume_takes_the_same_steps(finished_run: Path, tmp_path: Path) -> None:
    interrupted = tmp_path / "run"
    shutil.copytree(finished_run, interrupted)
    (interrupted / "checkpoint-0000006.pt").unlink()
    (interrupted / "sam" / "model.safetensors").unlink()
    train_sam(tiny_config(), interrupted, resume=True)
    whole, cut = (torch.load(run / "checkpoint-0000006.pt") for run in (finished_run, interrupted))
    for name, value in whole["model"].items():
        assert torch.equal(value, cut["model"][name]), name
    logs = [read_log(run / "train.jsonl") for run in (finished_run, interrupted)]
    assert [record["step"] for record in logs[1]] == [1, 2, 3, 4, 5, 6], "steps that are taken again are logged once"
    assert [record["edge"] for record in logs[0]] == [record["edge"] for record in logs[1]]


def test_a_finished_run_continues_with_more_steps(finished_run: Path, tmp_path: Path) -> None:
    longer = tmp_path / "run"
    shutil.copytree(finished_run, longer)
    (longer / "sam" / "model.safetensors").write_bytes(b"of the checkpoint before, since a kill came in between")
    train_sam(tiny_config(), longer, resume=True)
    for name in ("sam/model.safetensors", "validation.jsonl", "checkpoint-0000006.pt", "curves.png"):
        assert (longer / name).read_bytes() == (finished_run / name).read_bytes(), name
    train_sam(replace(tiny_config(), steps=8), longer, resume=True)
    assert read_log(longer / "train.jsonl")[-1]["step"] == 8


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-0000003.pt").touch()
    with pytest.raises(UsageError, match="--resume"):
        train_sam(tiny_config(), tmp_path, resume=False)


def test_a_checkpoint_folder_round_trips_in_half_precision(tmp_path: Path) -> None:
    sam = build_sam(TINY)
    save_sam(sam, TINY, tmp_path)
    assert read_architecture(tmp_path) == TINY
    loaded = load_segmenter(tmp_path).state_dict()
    for name, value in sam.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.half().float()), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither config.json nor weights"),
        ("{", "not JSON"),
        ('{"model_type": "qwen2_5_vl"}', "of type 'qwen2_5_vl'"),
        ('{"model_type": "segment_anything", "color": 1}', "color: unknown key"),
        ('{"model_type": "segment_anything", "patch_size": 9}', "patch_size"),
    ],
)
def test_a_bad_config_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        read_architecture(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_sam(build_sam(TINY), TINY, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "encoder_dim": 32}))
    with pytest.raises(UsageError, match="does not hold the weights"):
        load_segmenter(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="is damaged"):
        load_segmenter(tmp_path)


def test_the_smoke_recipe_learns(tmp_path: Path) -> None:
    train_sam(load_recipe("embedded-sam-smoke"), tmp_path, resume=False)
    losses = [record["bce"] + record["edge"] + record["dice"] for record in read_log(tmp_path / "train.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    assert (tmp_path / "curves.png").stat().st_size > 0
    assert read_log(tmp_path / "validation.jsonl")[-1]["split"] == "test"
    assert load_recipe(str(tmp_path / "recipe.yaml")) == load_recipe("embedded-sam-smoke")


def test_the_embedded_model_segments_scenes_it_has_not_seen() -> None:
    figures = validate_sam(load_segmenter(EMBEDDED), "validation", 16)
    assert figures["masks"]["iou"] >= 0.94
    assert figures["masks"]["score_error"] <= 0.05


def test_the_embedded_model_came_from_the_recipe_of_its_name() -> None:
    recipe = load_recipe("embedded-sam")
    assert load_recipe(str(EMBEDDED / "recipe.yaml")) == recipe
    assert read_architecture(EMBEDDED) == recipe.model
    assert read_log(EMBEDDED / "train.jsonl")[-1]["step"] == recipe.steps


def test_the_embedded_model_is_small() -> None:
    parameters = sum(parameter.numel() for parameter in load_segmenter(EMBEDDED).parameters())
    assert parameters <= 8_000_000
