"""EdgeTAM and SAM 3 in the forms in which people have them give the masks of their authors' code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
import transformers

from locations import SUPPORT
from tiny_models import make_sam2
from tiny_sam2_kin import make_edgetam, make_sam3, numbered
from wise_edge.errors import UsageError
from wise_edge.export.to_onnx.sam2 import ImageEncoder
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.sam import sam3_tracker
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.names import to_sam3_tracker
from wise_edge.sam.video.checkpoint import load_video


def read_official(name: str) -> dict[str, Any]:
    """Names and shapes of the authors' code, and its masks with the tensors of `numbered`."""
    found: dict[str, Any] = json.loads(gzip.decompress((SUPPORT / "data" / f"{name}.json.gz").read_bytes()))
    return found


def segment(model: Any, image: np.ndarray[Any, Any], mean: float | None, points: Any, box: Any) -> Any:
    side = {"size": {"height": image.shape[0], "width": image.shape[1]}}
    normalized = {} if mean is None else {"image_mean": [mean] * 3, "image_std": [mean] * 3}
    pixels = transformers.Sam2ImageProcessor(**side, **normalized)(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(
            pixel_values=pixels,
            input_points=torch.tensor([[points]]),
            input_labels=torch.ones(1, 1, len(points), dtype=torch.int32),
            input_boxes=torch.tensor([[box]]),
        )


def test_every_tensor_of_the_published_edgetam_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "edgetam.pt"
    torch.save({"model": numbered(read_official("edgetam")["tensors"])}, file)

    spec, model = read_sam_spec(file), load_segmenter(file)  # refuses missing tensors, further ones, other shapes

    assert (spec.family, spec.input_size, spec.low_res_size, spec.multimask) == ("edgetam", 1024, 256, True)
    assert spec.pixel_mean == (123.675, 116.28, 103.53)
    assert not any(module.training for module in model.modules())


@pytest.mark.slow
def test_every_tensor_of_the_published_memory_of_edgetam_has_its_place(tmp_path: Path) -> None:
    file, state = tmp_path / "edgetam.pt", numbered(read_official("edgetam")["tensors"])
    torch.save({"model": state}, file)

    memory, model = read_sam_spec(file).memory, load_video(file)  # refuses missing tensors, further ones, other shapes

    assert memory is not None
    assert (memory.recent_frames, memory.recent_pointers, memory.bfloat16) == (6, 15, False)
    layer, theirs = model.spatial_perceiver.layers[0], "spatial_perceiver.layers.0."
    for ours, name in ((layer.cross_attention, "attn"), (layer.self_attention, "self_attn")):
        keys_and_values = torch.cat([ours.k_proj.weight, ours.v_proj.weight])
        assert torch.equal(keys_and_values, state[f"{theirs}{name}.to_kv.weight"])
        assert torch.equal(ours.q_proj.weight, state[f"{theirs}{name}.to_q.weight"])
    assert torch.equal(model.spatial_perceiver.latents_1d, state["spatial_perceiver.latents"])
    assert torch.equal(
        model.memory_attention.layers[1].mlp.up_proj.weight, state["memory_attention.layers.1.linear1.weight"]
    )


@pytest.mark.slow
def test_masks_of_the_published_edgetam_are_those_of_its_own_code(tmp_path: Path) -> None:
    official, file = read_official("edgetam"), tmp_path / "edgetam.pt"
    torch.save({"model": numbered(official["tensors"])}, file)
    coarse = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)[:32, :32]
    image = np.repeat(np.repeat(coarse, 32, axis=0), 32, axis=1)

    out = segment(load_segmenter(file), image, None, [[400.0, 500.0], [600.0, 700.0]], [200.0, 300.0, 800.0, 900.0])

    np.testing.assert_allclose(out.pred_masks[0, 0, :, ::32, ::32], official["low_res_masks"], atol=1e-3)
    np.testing.assert_allclose(out.iou_scores[0, 0], official["iou"], atol=1e-4)


def test_every_tensor_of_the_published_sam3_has_its_place() -> None:
    shapes = read_official("sam3")["tensors"]["full"]
    with torch.device("meta"):  # shapes without weights
        state = to_sam3_tracker({name.removeprefix("tracker."): torch.empty(shape) for name, shape in shapes.items()})
        model = transformers.Sam3TrackerModel(transformers.Sam3TrackerConfig())
    assert {name: each.shape for name, each in state.items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_masks_of_sam3s_file_are_those_of_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official, file = read_official("sam3"), tmp_path / "sam3.pt"
    shapes = official["tensors"]["small"]
    weights = numbered({name: shape for name, shape in shapes.items() if "freqs_cis" not in name})
    angles = {name: torch.zeros(shapes[name], dtype=torch.complex64) for name in shapes if "freqs_cis" in name}
    torch.save({**weights, **angles, "detector.transformer.decoder.query_embed.weight": torch.zeros(2, 2)}, file)
    assert read_sam_spec(file).to_dict() == {
        "family": "sam3_tracker", "input_size": 1008, "low_res_size": 288, "pixel_mean": (127.5,) * 3,
        "pixel_std": (127.5,) * 3, "multimask": True,
    }  # fmt: skip
    trunk: dict[str, Any] = {
        **sam3_tracker.OWN_CODE["vision_config"]["backbone_config"],
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 112,
        "window_size": 4, "global_attn_indexes": [1, 3], "pretrain_image_size": 56,
    }  # fmt: skip
    sizes = [[32, 32], [16, 16], [8, 8]]
    small = {
        "vision_config": {"backbone_config": trunk, "backbone_feature_sizes": sizes},
        "prompt_encoder_config": {"image_size": 112},
    }
    monkeypatch.setattr(sam3_tracker, "OWN_CODE", small)
    image = np.random.default_rng(0).integers(0, 256, (14, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1)

    out = segment(load_segmenter(file), image, 0.5, [[40.0, 50.0], [60.0, 70.0]], [20.0, 30.0, 80.0, 90.0])

    np.testing.assert_allclose(out.pred_masks[0, 0, :, ::4, ::4], official["low_res_masks"], atol=1e-4)
    np.testing.assert_allclose(out.iou_scores[0, 0], official["iou"], atol=1e-5)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("form", ["tracker", "tracker video", "complete"])
def test_sam3_is_read_in_all_of_transformers_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, as_file: bool
) -> None:
    model = make_sam3(form)
    model.save_pretrained(tmp_path)
    checkpoint = tmp_path
    if as_file:  # such a file is one of the published sizes
        config = json.loads((tmp_path / "config.json").read_text())
        monkeypatch.setattr(sam3_tracker, "_read_config", lambda _: config.get("tracker_config", config))
        checkpoint = tmp_path / "model.safetensors"

    spec, loaded = read_sam_spec(checkpoint), load_segmenter(checkpoint)

    assert (spec.family, spec.input_size, spec.low_res_size) == ("sam3_tracker", 56, 16)
    tracker = getattr(model, "tracker_model", model)
    neck, shared = (
        (model.tracker_neck, model.detector_model.vision_encoder.backbone)
        if form == "complete"
        else (model.vision_encoder.neck, model.vision_encoder.backbone)
    )
    for ours, theirs in (
        (loaded.mask_decoder, tracker.mask_decoder),
        (loaded.prompt_encoder, tracker.prompt_encoder),
        (loaded.vision_encoder.neck.fpn_layers, neck.fpn_layers[:3]),
        (loaded.vision_encoder.backbone, shared),
    ):
        saved = theirs.state_dict()
        assert all(torch.equal(values, saved[name]) for name, values in ours.state_dict().items())
    assert torch.equal(loaded.no_memory_embedding, tracker.no_memory_embedding)


def test_the_published_video_form_of_edgetam_is_read(tmp_path: Path) -> None:
    video = make_edgetam(video=True)
    video.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "edgetam_video"

    loaded = load_segmenter(tmp_path).state_dict()

    saved = video.state_dict()
    assert read_sam_spec(tmp_path).family == "edgetam"
    assert all(torch.equal(loaded[name], saved[name]) for name in loaded)


def test_branches_of_edgetam_become_one_convolution_each(tmp_path: Path) -> None:
    model, image = make_edgetam(), torch.zeros(1, 3, 128, 128)
    layers = [type(module).__name__ for module in model.vision_encoder.modules()]

    export_onnx(ImageEncoder(model), (image,), ["image"], ["a", "b", "c"], tmp_path / "encoder.onnx")

    nodes = [node.op_type for node in onnx.load(tmp_path / "encoder.onnx").graph.node]
    assert nodes.count("Conv") == layers.count("Conv2d") - layers.count("RepVggDw") + 2  # conv_s0 and conv_s1
    assert "BatchNormalization" not in nodes
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())  # the reference stays as it is


def test_an_edgetam_of_transformers_default_trunk_is_one_line(tmp_path: Path) -> None:
    config = make_edgetam().config
    config.vision_config.backbone_config = transformers.TimmWrapperConfig(
        architecture="resnet10t", model_args={"features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    transformers.EdgeTamModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        UsageError, match=r"resnet10t has \[.*backbone_channel_list is \[32, 24, 16, 8\]; give"
    ) as caught:
        load_segmenter(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "lost", "words"),
    [
        (make_edgetam, "mask_decoder.iou_token.weight", "lacks the weight mask_decoder.iou_token.weight"),
        (
            make_sam3,
            "tracker_model.mask_decoder.iou_token.weight",
            "complete SAM 3: it lacks 'mask_decoder.iou_token",
        ),
        (make_sam2, "no_memory_embedding", "lacks the weight no_memory_embedding"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, make: Any, lost: str, words: str) -> None:
    make().save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del weights[lost]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=words) as caught:
        load_segmenter(tmp_path)
    assert "\n" not in str(caught.value)
