"""HQ-SAM's files and folders are recognized; their masks are those of the authors' predictor and of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sam_predictors import check_against_predictor, draw_picture
from wise_edge.errors import UsageError
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import import_library
from wise_edge.sam.hq_sam import build_hq_sam
from wise_edge.sam.mobile_sam import MobileSamArchitecture
from wise_edge.sam.published import infer_architecture
from wise_edge.sam.segment_anything import SamArchitecture

library: Any = import_library("segment_anything_hq")
ARCHITECTURES = {
    "vit": SamArchitecture(
        relative_positions=True, input_size=64, patch_size=8, encoder_dim=32, encoder_depth=3, encoder_heads=2,
        window_size=3, global_attention=(1, 2), prompt_dim=64, decoder_heads=8, decoder_mlp_dim=32,
    ),
    "light": MobileSamArchitecture(
        encoder_dims=(8, 16, 24, 32), encoder_depths=(1, 1, 2, 1), encoder_heads=(1, 1, 2, 4),
        window_sizes=(1, 7, 4, 8), mlp_ratio=2.0, prompt_dim=64, decoder_mlp_dim=32,
    ),
}  # fmt: skip


def randomize(model: Any) -> Any:
    """Numbers everywhere that a wrong early feature, a stale bias or a missing `.eval()` cannot pass."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("attention_biases", "running_mean", "bias")) or "pos" in name:
                value.normal_(0, 0.3)
            elif value.ndim >= 2 and "mask_decoder" in name:
                value.normal_(0, 0.2)
            elif any(part in name for part in ("qkv.weight", "q_proj.weight", "k_proj.weight")):
                value.mul_(4)
    return model.eval()


@pytest.fixture(scope="module", params=["vit", "light"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file as the authors publish it, and the model that it was saved from."""
    model = randomize(build_hq_sam(ARCHITECTURES[request.param]))
    file = tmp_path_factory.mktemp("saved") / "sam_hq.pth"
    torch.save(model.state_dict(), file)
    return file, model


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_published_sizes_are_recognized(name: str) -> None:
    with torch.device("meta"):  # shapes without weights
        model = library.sam_model_registry[name](checkpoint=None)
        rebuilt = build_hq_sam(SamArchitecture(**infer_architecture(Path("sam_hq.pth"), model.state_dict())))

    assert repr(rebuilt) == repr(model)


def test_the_light_encoder_is_the_authors(tmp_path: Path) -> None:
    # Its code has 1024 px, 256 channels and a last width of 320 written into it.
    architecture = MobileSamArchitecture(
        encoder_dims=(8, 8, 16, 320), encoder_depths=(1, 1, 1, 1), encoder_heads=(1, 1, 2, 4)
    )
    theirs = import_library("segment_anything_hq.modeling").TinyViT(
        img_size=1024, num_classes=7, embed_dims=[8, 8, 16, 320], depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4],
        window_sizes=[7, 7, 14, 7], drop_path_rate=0.0,
    )  # fmt: skip
    randomize(theirs)
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    sam = build_hq_sam(architecture)
    published = {f"image_encoder.{name}": value for name, value in theirs.state_dict().items()}
    others = {n: value for n, value in sam.state_dict().items() if not n.startswith("image_encoder.")}
    torch.save({**published, **others}, tmp_path / "sam_hq_vit_tiny.pth")

    loaded = load_segmenter(tmp_path / "sam_hq_vit_tiny.pth").image_encoder
    with torch.no_grad():
        features, (early,) = theirs(image)
        ours, (our_early,) = loaded(image)
    assert early.shape == (1, 64, 64, 16)
    torch.testing.assert_close(our_early, early)
    torch.testing.assert_close(ours, features)


def test_masks_are_those_of_the_authors_predictor(saved: tuple[Path, Any]) -> None:
    file, model = saved
    assert read_sam_spec(file).family == "hq_sam"
    for size in ((90, 60), (40, 200)):
        check_against_predictor(file, library.SamPredictor(model), size)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_exports_to_graphs_that_equal_torch(saved: tuple[Path, Any], precision: str, tmp_path: Path) -> None:
    source = SamSource(saved[0])
    samples = [CalibrationSample("", draw_picture((90, 60)), "")]

    artifacts = source.export(tmp_path, precision, False, samples, lambda *_: None)
    figures = source.compare(tmp_path, precision, False, lambda *_: None)

    assert [artifact.role for artifact in artifacts] == ["sam.encoder", "sam.decoder"]
    # Attention and decoder are far from their small initial weights, which would hide differences.
    assert {"fp32": 1e-5, "fp16": 2e-2, "int8": 0.5}[precision] > max(figure.value for figure in figures)


@pytest.fixture(scope="module")
def hq_model() -> Any:
    """transformers' HQ-SAM of 64 px, whose decoder goes on with what its transformer made of the image.

    That of transformers 5.24 forgets it, and turns the embedding that it goes on with about its diagonal.
    """
    config = transformers.SamHQConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1, 2], "mlp_dim": 128,
            "num_pos_feats": 32,
        },
        prompt_encoder_config={"hidden_size": 64, "image_size": 64, "patch_size": 8},
        mask_decoder_config={"hidden_size": 64, "mlp_dim": 48, "iou_head_hidden_dim": 64, "vit_dim": 32},
    )  # fmt: skip
    model = randomize(transformers.SamHQModel(config))
    kept: list[torch.Tensor] = []
    decoder = model.mask_decoder
    decoder.transformer.register_forward_hook(lambda _, __, outputs: kept.append(outputs[1]))
    decoder.upscale_conv1.register_forward_pre_hook(
        lambda _, inputs: (kept.pop().transpose(2, 3).reshape(inputs[0].shape),)
    )
    return model


@pytest.mark.parametrize("form", ["folder", "file"])
def test_masks_of_sam_hq_model_are_those_of_transformers(hq_model: Any, tmp_path: Path, form: str) -> None:
    hq_model.save_pretrained(tmp_path)
    processor = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    image = draw_picture((64, 64))
    prompt = MaskPrompt((8, 10, 50, 40), ((20, 20), (30, 30)))

    opened = open_torch_mask(tmp_path if form == "folder" else tmp_path / "model.safetensors")
    found = opened.decode(opened.encode(image), prompt)

    with torch.no_grad():
        expected = hq_model(
            pixel_values=processor(image, return_tensors="pt")["pixel_values"],
            input_boxes=torch.tensor(prompt.box, dtype=torch.float32)[None, None],
            input_points=torch.tensor(prompt.points, dtype=torch.float32)[None, None],
            input_labels=torch.ones(1, 1, 2, dtype=torch.int64),
            multimask_output=True,
        )
    logits = expected.pred_masks[0, 0, 0].numpy()
    assert found.score == pytest.approx(float(expected.iou_scores[0, 0].max()), abs=1e-3)
    # transformers' layer norms in the decoder add 1e-6 to the variance, the authors' 1e-5.
    np.testing.assert_allclose(found.logits, logits, atol=2e-3 * np.abs(logits).max())
    assert mask_iou(found.logits > 0, logits > 0) > 0.99 and 0 < (logits > 0).mean() < 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("mask_decoder.hf_token.weight"), r"it lacks 'mask_decoder\.hf_token\.weight'"),
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "lacks"),
        (lambda state: state.update({"mask_decoder.hf_token.weight": torch.full((1, 64), torch.nan)}), "finite"),
    ],
)
def test_a_damaged_file_is_one_line(damage: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    state = build_hq_sam(ARCHITECTURES["vit"]).state_dict()
    damage(state)
    torch.save(state, tmp_path / "sam_hq.pth")

    with pytest.raises(UsageError, match=message) as caught:
        load_segmenter(tmp_path / "sam_hq.pth")
    assert "\n" not in str(caught.value)
