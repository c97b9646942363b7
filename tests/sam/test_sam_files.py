"""Segmenters as people have them: wrapped, prefixed, in half precision, and in transformers' or Meta's own form."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from locations import SUPPORT
from tiny_models import SAM, make_sam2
from tiny_sam2_kin import numbered
from wise_edge.errors import UsageError
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.mask.torch_mask import TorchSegmentAnything, open_torch_mask
from wise_edge.sam import kinds, sam2
from wise_edge.sam import weights as weights_module
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.names import VIDEO_PARTS, to_sam2_model
from wise_edge.sam.segment_anything import SamArchitecture, build_sam
from wise_edge.sam.video import checkpoint as video

State = dict[str, torch.Tensor]
TINY = SamArchitecture(**{**SAM.__dict__, "decoder_heads": 8, "prompt_dim": 64})
PROMPT = MaskPrompt((10, 12, 50, 48), ((30, 30), (25, 35)))


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return build_sam(TINY).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "model beside optimizer": lambda s: {
        "model": s,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1}]},
        "epoch": 7,
    },
    "state_dict": lambda s: {"state_dict": s},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "nested": lambda s: {"checkpoint": {"net": {"weights": s}}},
    "EMA alone": lambda s: {"ema": s, "updates": 12},
    "DistributedDataParallel": lambda s: prefixed(s, "module."),
    "wrapped and prefixed": lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
    "a module around it": lambda s: {"model_state": prefixed(s, "sam.")},
    "of a trainer with arguments": lambda s: {"model": s, "args": argparse.Namespace(lr=1e-4), "best": np.float64(0.9)},
    "buffers of old files": lambda s: s | {"pixel_mean": torch.ones(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)},
    "parameters": lambda s: {name: torch.nn.Parameter(tensor) for name, tensor in s.items()},
}


@pytest.mark.parametrize("case", WRAPPED)
def test_the_model_is_found_in_what_trainings_save(state: State, tmp_path: Path, case: str) -> None:
    file = tmp_path / "sam.pth"
    torch.save(WRAPPED[case](state), file)

    loaded = load_segmenter(file).state_dict()

    assert read_sam_spec(file).multimask
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(state: State, tmp_path: Path, dtype: torch.dtype) -> None:
    rounded = {name: tensor.to(dtype) for name, tensor in state.items()}
    torch.save(rounded, tmp_path / "sam.pth")

    loaded = load_segmenter(tmp_path / "sam.pth").state_dict()

    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in rounded.items())


def test_safetensors_and_files_of_old_torch_are_read(state: State, tmp_path: Path) -> None:
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "sam.safetensors")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("sam.safetensors", "old.pth"):
        loaded = load_segmenter(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "two models": (lambda s: {"model": s, "ema": {"shadow": s}}, "holds 2 models: 'model', 'ema.shadow'; save the one"),
    "further weights": (lambda s: s | {"head.w": torch.ones(1), "a": torch.ones(1)}, "more .*: 'a', 'head.w'; save"),
    "a module": (lambda s: torch.nn.Linear(2, 2), "an object of torch.nn.modules.linear.Linear.*state_dict"),
    "an optimizer": (lambda s: {"optimizer": {}, "epoch": 3}, "no segmenter's weights .see 'optimizer', 'epoch'"),
    "MobileSAM": (
        lambda s: {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(1)},
        "lacks .*not a complete checkpoint of MobileSAM",
    ),
    "EfficientViT-SAM": (
        lambda s: {"image_encoder.backbone.stages.0.w": torch.ones(1)},
        "lacks .*not a complete checkpoint of EfficientViT-SAM",
    ),
    "adapters": (lambda s: s | {"image_encoder.blocks.0.attn.qkv.linear_a_q.weight": torch.ones(1)}, "with adapters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_named_as_what_they_are(state: State, tmp_path: Path, case: str) -> None:
    content, words = REFUSED[case]
    file = tmp_path / "sam.pth"
    torch.save(content(state), file)

    with pytest.raises(UsageError, match=words) as caught:
        read_sam_spec(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_the_reason_is_torchs_own_and_not_its_advice(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_text("<!DOCTYPE html><html>not found</html>")

    with pytest.raises(UsageError, match=r"read safely \((?!Weights only)[^)]*\); copy or download"):
        read_sam_spec(tmp_path / "sam.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_and_a_git_lfs_pointer_are_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    pointers = ("lfs.pth", "lfs.safetensors")
    for name in pointers:
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    for name, words in {"script.pt": "TorchScript", **dict.fromkeys(pointers, "git lfs pull")}.items():
        with pytest.raises(UsageError, match=words):
            read_sam_spec(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"config.json": {"model_type": "vit"}}, "a model of type 'vit'"),
        ({"sam2.1_hiera_tiny.pt": {}, "sam2.1_hiera_t.yaml": {}}, "pass the file in it.*sam2.1_hiera_tiny.pt"),
        ({"bundle.json": {}}, "is a bundle"),
        ({}, "neither config.json nor weights"),
    ],
)
def test_other_folders_are_named_as_what_they_are(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    for name, entries in content.items():
        (tmp_path / name).write_text(json.dumps(entries))
    with pytest.raises(UsageError, match=words):
        read_sam_spec(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_sam_spec(tmp_path / "facebook" / "sam-vit-base")


@pytest.fixture(scope="module")
def sam_model() -> Any:
    """transformers' SAM of 64 px, with random positions and three masks that differ."""
    torch.manual_seed(1)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 128,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
    )  # fmt: skip
    model = transformers.SamModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 or "pos" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("form", ["safetensors", "shards", "bin"])
def test_masks_of_a_folder_of_sam_model_are_those_of_transformers(sam_model: Any, tmp_path: Path, form: str) -> None:
    sam_model.save_pretrained(tmp_path, max_shard_size="50KB" if form == "shards" else "1GB")
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(sam_model.state_dict(), tmp_path / "pytorch_model.bin")
    processor = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, image_mean=[0.4, 0.5, 0.6]
    )
    transformers.SamProcessor(processor).save_pretrained(tmp_path)
    assert read_sam_spec(tmp_path).pixel_mean == (102.0, 127.5, 153.0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    opened = open_torch_mask(tmp_path)
    found = opened.decode(opened.encode(image), PROMPT)

    assert isinstance(opened, TorchSegmentAnything)
    with torch.no_grad():
        expected = sam_model(
            pixel_values=processor(image, return_tensors="pt")["pixel_values"],
            input_boxes=torch.tensor(PROMPT.box, dtype=torch.float32)[None, None],
            input_points=torch.tensor(PROMPT.points, dtype=torch.float32)[None, None],
            input_labels=torch.ones(1, 1, 2, dtype=torch.int64),
        )
    best = int(expected.iou_scores[0, 0].argmax())
    logits = expected.pred_masks[0, 0, best].numpy()
    assert found.score == pytest.approx(float(expected.iou_scores[0, 0, best]), abs=1e-4)
    # transformers' layer norms in the decoder add 1e-6 to the variance, segment-anything's 1e-5.
    np.testing.assert_allclose(found.logits, logits, atol=2e-3 * np.abs(logits).max())
    assert mask_iou(found.logits > 0, logits > 0) > 0.99 and 0 < (logits > 0).mean() < 1


def test_a_folder_of_sam_model_without_a_tensor_names_it(sam_model: Any, tmp_path: Path) -> None:
    sam_model.save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"mask_decoder\.iou_token\.weight"):
        load_segmenter(tmp_path)


def test_a_folder_of_sam2_takes_the_normalization_of_any_transformers(tmp_path: Path) -> None:
    make_sam2().save_pretrained(tmp_path)
    processor = transformers.Sam2ImageProcessor(image_mean=[0.4] * 3)
    transformers.Sam2Processor(processor).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.glob("*processor*")} == {"processor_config.json"}
    assert read_sam_spec(tmp_path).pixel_mean == (102.0,) * 3


@pytest.mark.parametrize("form", ["shards", "bin"])
def test_other_weight_files_of_sam2_are_read(tmp_path: Path, form: str) -> None:
    model = make_sam2()
    model.save_pretrained(tmp_path, max_shard_size="50KB" if form == "shards" else "1GB")
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = load_segmenter(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    """Names and shapes of SAM 2.1's four sizes in Meta's code, and its masks with the tensors of `numbered`."""
    found: dict[str, Any] = json.loads(gzip.decompress((SUPPORT / "data" / "sam2.json.gz").read_bytes()))
    return found


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
def test_every_tensor_of_the_published_sam2_files_has_its_place(
    official: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str
) -> None:
    shapes = official["tensors"][size]
    with torch.device("meta"):  # shapes without weights
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        monkeypatch.setattr("wise_edge.sam.sam2.read_weights", lambda _: weights)
        file = tmp_path / "sam2.1.pt"
        file.touch()
        monkeypatch.setattr("wise_edge.sam.weights.check_finite", lambda *_: None)
        model = sam2.load(file)  # refuses missing tensors, further ones, and other shapes
    assert sum(tensor.numel() for tensor in to_sam2_model(weights).values()) == sum(
        tensor.numel() for tensor in model.state_dict().values()
    )


@pytest.mark.slow
def test_masks_of_a_published_sam2_file_are_those_of_its_own_code(official: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": numbered(official["tensors"]["t"])}, file)
    coarse = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)[:32, :32]
    image = np.repeat(np.repeat(coarse, 32, axis=0), 32, axis=1)

    spec, model = read_sam_spec(file), load_segmenter(file)

    assert (spec.family, spec.input_size, spec.low_res_size, spec.multimask) == ("sam2", 1024, 256, True)
    with torch.no_grad():
        output = model(
            pixel_values=transformers.Sam2ImageProcessor()(image, return_tensors="pt")["pixel_values"],
            input_points=torch.tensor([[[[400.0, 500.0], [600.0, 700.0]]]]),
            input_labels=torch.ones(1, 1, 2, dtype=torch.int32),
            input_boxes=torch.tensor([[[200.0, 300.0, 800.0, 900.0]]]),
        )
    np.testing.assert_allclose(output.pred_masks[0, 0, :, ::32, ::32], official["low_res_masks"], atol=1e-3)
    np.testing.assert_allclose(output.iou_scores[0, 0], official["iou"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {n: t for n, t in s.items() if ".blocks.11." not in n}, "none of SAM 2's published sizes"),
        (lambda s: {n: t for n, t in s.items() if "iou_token" not in n}, "complete SAM 2.*iou_token"),
        (lambda s: {n: t for n, t in s.items() if "patch_embed" not in n}, "complete checkpoint of SAM 2"),
    ],
)
def test_other_sam2_files_are_one_line(
    official: dict[str, Any], tmp_path: Path, change: Callable[[State], State], words: str
) -> None:
    state = {name: torch.zeros(()).expand(shape) for name, shape in official["tensors"]["t"].items()}
    torch.save({"model": change(state)}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=words) as caught:
        load_segmenter(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_a_single_file_with_transformers_names_is_read(official: dict[str, Any], tmp_path: Path) -> None:
    state = {name: torch.zeros(shape) for name, shape in official["tensors"]["t"].items()}
    named = {name: tensor.contiguous() for name, tensor in to_sam2_model(state).items() if "shared_image" not in name}
    safetensors.torch.save_file(named, tmp_path / "model.safetensors")
    assert read_sam_spec(tmp_path / "model.safetensors").family == "sam2"
    assert set(load_segmenter(tmp_path / "model.safetensors").state_dict()) == set(to_sam2_model(state))


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
def test_every_tensor_of_a_published_memory_has_its_place(
    official: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str
) -> None:
    file = tmp_path / "sam2.1.pt"
    file.touch()
    with torch.device("meta"):  # shapes without weights
        weights = {name: torch.empty(shape) for name, shape in official["tensors"][size].items()}
        for module in (sam2, video, kinds):
            monkeypatch.setattr(module, "read_weights", lambda _: weights)
        for module in (sam2, video, weights_module):
            monkeypatch.setattr(module, "check_finite", lambda *_: None)
        model = video.load_video(file)  # refuses missing tensors, further ones, and other shapes
    assert type(model).__name__ == "Sam2VideoModel"
    assert (
        sum(each.numel() for each in model.state_dict().values())
        == sum(each.numel() for each in weights.values())
        + weights["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].numel()
    )  # there twice
    memory = read_sam_spec(file).memory
    assert memory is not None
    assert (memory.recent_frames, memory.recent_pointers, memory.bfloat16) == (6, 15, True)


def test_a_memory_is_read_from_files_of_either_naming(tmp_path: Path, official: dict[str, Any]) -> None:
    state = numbered(official["tensors"]["t"])
    torch.save({"model": state}, tmp_path / "sam2.1_hiera_tiny.pt")
    model = video.load_video(tmp_path / "sam2.1_hiera_tiny.pt")
    assert torch.equal(
        model.memory_attention.layers[2].linear1.weight, state["memory_attention.layers.2.linear1.weight"]
    )
    assert torch.equal(model.memory_encoder.projection.bias, state["memory_encoder.out_proj.bias"])
    assert torch.equal(model.object_pointer_proj.layers[0].bias, state["obj_ptr_proj.layers.1.bias"])
    assert torch.equal(model.no_object_pointer, state["no_obj_ptr"])
    safetensors.torch.save_file(
        {name: tensor for name, tensor in model.state_dict().items() if "shared_image" not in name},
        tmp_path / "model.safetensors",
    )
    again = video.load_video(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_a_checkpoint_for_images_has_no_memory_and_a_torn_one_is_one_line(
    tmp_path: Path, official: dict[str, Any]
) -> None:
    state = {name: torch.zeros(()).expand(shape) for name, shape in official["tensors"]["t"].items()}
    image = {name: each for name, each in state.items() if not name.startswith(VIDEO_PARTS)}
    torch.save({"model": image}, tmp_path / "image.pt")
    assert read_sam_spec(tmp_path / "image.pt").memory is None
    torn = {name: each for name, each in state.items() if "fuser.layers.1" not in name}
    torch.save({"model": torn}, tmp_path / "torn.pt")
    with pytest.raises(
        UsageError, match=r"torn\.pt does not hold the weights of a complete video model: .*memory_fuser\.layers\.1"
    ) as caught:
        video.load_video(tmp_path / "torn.pt")
    assert "\n" not in str(caught.value)
