"""Training of MobileSAM and EdgeTAM: their forward pass, their recipes and checkpoints, and the weights that ship."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from locations import ASSETS
from wise_edge.bundle.shipped import SEGMENTERS
from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.mobile_sam import MobileSamArchitecture
from wise_edge.sam.segment_anything import SamArchitecture, build_sam, save_sam

pytest.importorskip("wise_edge.training.sam", exc_type=MissingExtraError)
pytest.importorskip("mobile_sam.modeling.tiny_vit_sam", reason="needs the extra 'segmenters'")
pytest.importorskip("timm", reason="needs the extra 'segmenters'")

import torch
from safetensors.torch import load_file

from wise_edge.training.common.step_log import read_log
from wise_edge.training.recipe import load_recipe
from wise_edge.training.sam.config import SamConfig
from wise_edge.training.sam.data import SamBatch, make_batch
from wise_edge.training.sam.edgetam import MEAN, STD, EdgeTamArchitecture, build_edgetam
from wise_edge.training.sam.edgetam_forward import predict_edgetam
from wise_edge.training.sam.loss import multimask_loss, sam_loss
from wise_edge.training.sam.segmenters import build_segmenter, half_precision, trained_parameters
from wise_edge.training.sam.train import train_sam
from wise_edge.training.sam.validation import validate_sam

DECODER: dict[str, Any] = {"prompt_dim": 16, "decoder_heads": 2, "decoder_mlp_dim": 32}
MOBILE = MobileSamArchitecture(
    input_size=64,
    encoder_dims=(8, 16, 16, 16),
    encoder_depths=(1, 1, 1, 1),
    encoder_heads=(1, 2, 2, 2),
    window_sizes=(4, 4, 4, 4),
    **DECODER,
)
EDGETAM = EdgeTamArchitecture(input_size=64, encoder_dims=(8, 8, 16, 16), encoder_depths=(1, 1, 1, 1), **DECODER)
TINY = {"mobile_sam": MOBILE, "edgetam": EDGETAM}


@pytest.fixture(scope="module")
def batch() -> SamBatch:
    return make_batch("train", range(3), 64)


def config(family: str, **changes: Any) -> SamConfig:
    made = SamConfig(family=family, model=TINY[family], steps=4, decay_steps=2, scenes_per_step=2, checkpoint_every=2)
    small = {"warmup_steps": 1, "log_every": 1, "validate_every": 2, "validate_scenes": 2, "final_scenes": 2}
    return replace(made, **small, **changes)  # type: ignore[arg-type]


def shake(model: torch.nn.Module) -> None:
    """Give norms and what they counted values that no fresh model has."""
    torch.manual_seed(3)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "no_memory" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("prompt", ["both", "box", "points"])
def test_the_batched_forward_of_edgetam_equals_transformers(batch: SamBatch, prompt: str) -> None:
    batch = replace(batch, boxes=None if prompt == "points" else batch.boxes)
    batch = replace(batch, points=None if prompt == "box" else batch.points)
    torch.manual_seed(0)
    model = build_edgetam(EDGETAM)
    shake(model)
    with torch.no_grad():
        logits, scores = predict_edgetam(model, batch)
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for scene, image in enumerate(batch.images):
        rows = batch.owners == scene
        inputs = {"pixel_values": ((torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std)[None]}
        if batch.points is not None:
            inputs["input_points"] = torch.from_numpy(batch.points[rows])[None]
            inputs["input_labels"] = torch.ones(1, int(rows.sum()), 2, dtype=torch.int64)
        if batch.boxes is not None:
            inputs["input_boxes"] = torch.from_numpy(batch.boxes[rows])[None]
        with torch.no_grad():
            stock = model(**inputs, multimask_output=True)
        scale = float(stock.pred_masks.abs().max())
        torch.testing.assert_close(logits[rows][:, 1:], stock.pred_masks[0], atol=1e-5 * scale, rtol=1e-5)
        torch.testing.assert_close(scores[rows][:, 1:], stock.iou_scores[0])


def test_the_loss_of_several_masks_is_of_the_single_and_of_the_best_one() -> None:
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    right = 40.0 * (mask[:, ::2, ::2].float() - 0.5)
    logits = torch.stack([right, -right, right, -right], 1)
    ious = torch.tensor([[1.0, 0, 1, 0]] * 2)
    assert sum(multimask_loss(logits, ious, mask).values()) < 1e-3
    single = multimask_loss(logits.flip(1), ious.flip(1), mask)  # now the single mask is the wrong one
    wrong = sam_loss(-right, torch.zeros(2), mask)
    assert single["bce"] == pytest.approx(float(wrong["bce"]) / 2, rel=1e-3)


@pytest.mark.parametrize("family", TINY)
def test_a_light_segmenter_is_trained_saved_and_resumed(family: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_sam(config(family), whole, resume=False) == whole / "sam"
    shutil.copytree(whole, cut)
    (cut / "checkpoint-0000004.pt").unlink()
    shutil.rmtree(cut / "sam")
    train_sam(config(family), cut, resume=True)
    states = [torch.load(run / "checkpoint-0000004.pt")["model"] for run in (whole, cut)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [record["edge"] for record in read_log(whole / "train.jsonl")] == [
        record["edge"] for record in read_log(cut / "train.jsonl")
    ]
    assert load_recipe(str(whole / "recipe.yaml")) == config(family)
    for run in (whole, cut):
        assert (run / "sam" / "model.safetensors").read_bytes() == (whole / "sam" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", TINY)
def test_half_precision_keeps_what_batch_norms_counted_and_validation_keeps_the_mode(family: str) -> None:
    model = build_segmenter(TINY[family])
    shake(model)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.mul_(1e-9)  # below the numbers of half precision
    rounded = half_precision(model).state_dict()
    for name, value in model.state_dict().items():
        counted = "running" in name or "num_batches" in name
        assert torch.equal(rounded[name], value if counted else value.half().float()), name
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validate_sam(model, "validation", 2)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", TINY)
def test_a_decoder_to_start_from_is_copied(family: str, tmp_path: Path) -> None:
    widths = SamArchitecture(input_size=56, encoder_dim=16, encoder_depth=1, global_attention=(), **DECODER)
    save_sam(build_sam(widths), widths, tmp_path / "start")
    torch.manual_seed(5)
    model: Any = build_segmenter(TINY[family], str(tmp_path / "start"))
    start = load_file(tmp_path / "start" / "model.safetensors")
    weight = "mask_decoder.transformer.layers.1.mlp.lin2.weight"
    found = dict(model.named_parameters())[weight.replace("lin2", "lin2" if family == "mobile_sam" else "proj_out")]
    assert torch.equal(found, start[weight].float())
    if family == "edgetam":
        tokens = model.mask_decoder.mask_tokens.weight
        assert not torch.equal(tokens[1], tokens[2]), "masks that begin equal would stay equal"
    with pytest.raises(UsageError, match=r"start: the decoder of .* does not fit"):
        build_segmenter(TINY[family], "embedded")


def test_muon_has_no_biases_of_attention() -> None:
    model = build_segmenter(replace(MOBILE, encoder_heads=(1, 8, 8, 8)))
    trained, matrices = ({id(p) for p in found} for found in trained_parameters(model))
    biases = [p for name, p in model.named_parameters() if name.endswith("attention_biases")]
    assert biases and all(p.ndim == 2 and id(p) in trained - matrices for p in biases)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["family=edgtam"], "family: choose one of segment_anything, mobile_sam, edgetam; it is 'edgtam'"),
        (["family=edgetam"], r"model.encoder_heads: unknown key; did you mean 'decoder_heads'"),
        (["model.input_size=200"], "input_size: must be a multiple of 16, is 200"),
        (["model=3"], "model: 3 is not a mapping"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("embedded-mobile-sam", changes)


@pytest.mark.parametrize(
    ("start", "message"), [("nowhere", "nowhere does not exist"), ("embedded-edgetam", "start: .* is EdgeTAM, whose")]
)
def test_a_start_that_cannot_be_used_leaves_no_folder(start: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train_sam(config("edgetam", start=start), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_shipped_segmenter_came_from_the_recipe_of_its_name(name: str) -> None:
    folder = resolve_checkpoint(name, "sam")
    assert folder == ASSETS / name
    recipe = load_recipe(name)
    assert load_recipe(str(folder / "recipe.yaml")) == recipe
    assert read_log(folder / "train.jsonl")[-1]["step"] == recipe.total_steps
    assert read_log(folder / "validation.jsonl")[-1]["masks"]["iou"] >= 0.95
    assert read_sam_spec(folder).input_size == recipe.model.input_size
    assert validate_sam(load_segmenter(folder), "validation", 8)["masks"]["iou"] >= 0.93
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
