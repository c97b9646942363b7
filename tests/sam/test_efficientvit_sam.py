"""EfficientViT-SAM's files are recognized by their shapes, and their masks are those of the authors' own predictor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sam_predictors import check_against_predictor, draw_picture
from wise_edge.errors import UsageError
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import import_library

library: Any = import_library("efficientsam.models.efficientvit.sam")
zoo: Any = import_library("efficientsam.sam_model_zoo")
ops: Any = import_library("efficientsam.models.nn.ops")
norms: Any = import_library("efficientsam.models.nn.norm")

SMALL = {
    "L": {
        "width_list": [8, 8, 16, 16, 32], "depth_list": [1, 0, 1, 1, 1], "qkv_dim": 8,
    },
    "XL": {
        "width_list": [4, 4, 8, 8, 16, 32], "depth_list": [0, 1, 1, 0, 1, 2], "qkv_dim": 8,
        "block_list": ["res", "fmb", "fmb", "fmb", "att@3", "att@3"], "expand_list": [1, 2, 2, 2, 2, 3],
        "fewer_norm_list": [False, False, False, False, True, True],
    },
}  # fmt: skip
"""Backbones of the library's two forms: of the sizes L0 to L2, and of XL0 and XL1."""
SIZES = {"L": [(300, 200), (512, 512), (200, 700)], "XL": [(300, 200)]}


def make_model(form: str) -> Any:
    """A narrow model of the library's classes, whose norms have seen data, as a training leaves them."""
    torch.manual_seed(0)
    backbone = library.EfficientViTLargeBackbone(**SMALL[form])
    fine = len(SMALL[form]["width_list"]) - 1
    neck = library.SamNeck(
        fid_list=[f"stage{fine - place}" for place in range(3)],
        in_channel_list=SMALL[form]["width_list"][:-4:-1],
        head_width=16,
        head_depth=2,
        expand_ratio=1 if form == "L" else 2,
        middle_op="fmb",
        out_dim=32,
    )
    encoder = library.EfficientViTSamImageEncoder(backbone, neck)
    encoder.norm = norms.build_norm("ln2d", 32)
    transformer = library.TwoWayTransformer(depth=2, embedding_dim=32, num_heads=8, mlp_dim=48)
    model = library.EfficientViTSam(
        encoder,
        library.PromptEncoder(
            embed_dim=32, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
        ),
        library.MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=32),
        image_size=(1024, 512 if form == "L" else 1024),
    )
    norms.set_norm_eps(model, 1e-6)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(0, 0.2)
            if isinstance(module, ops.LiteMLA):  # a head without queries, which divides by its guard alone
                module.qkv.conv.weight[: module.dim] = 0
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(4)
    return model.eval()


@pytest.fixture(scope="module", params=["L", "XL"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file as the authors publish it, and the model that it was saved from."""
    model = make_model(request.param)
    file = tmp_path_factory.mktemp("saved") / "model.pt"
    torch.save({"state_dict": model.state_dict()} if request.param == "L" else model.state_dict(), file)
    return file, model


@pytest.mark.parametrize(("size", "pixels"), [("l0", 512), ("l1", 512), ("l2", 512), ("xl0", 1024), ("xl1", 1024)])
def test_the_published_sizes_are_recognized(size: str, pixels: int, tmp_path: Path) -> None:
    from wise_edge.sam.efficientvit_sam import TITLE, _Architecture, _build, _infer
    from wise_edge.sam.published import infer

    with torch.device("meta"):  # shapes without weights: XL1 alone has 800 MB
        model = zoo.create_efficientvit_sam_model(f"efficientvit-sam-{size}", pretrained=False)
        found = _Architecture(**infer(tmp_path, TITLE, model.state_dict(), _infer))
        rebuilt = _build(found)

    assert found.input_size == pixels
    assert repr(rebuilt) == repr(model)  # every layer with its sizes, strides and epsilons


def test_a_file_restores_the_model_that_it_was_saved_from(saved: tuple[Path, Any]) -> None:
    file, model = saved
    spec = read_sam_spec(file)
    image = torch.randn(1, 3, spec.input_size, spec.input_size)

    with torch.no_grad():
        assert torch.equal(load_segmenter(file).image_encoder(image), model.image_encoder(image))
    assert (spec.family, spec.prompt_side, spec.low_res_size, spec.multimask) == ("efficientvit_sam", 1024, 256, True)
    assert spec.input_size == model.image_size[1]


def test_masks_are_those_of_the_authors_predictor(saved: tuple[Path, Any]) -> None:
    file, model = saved
    for size in SIZES["L" if model.image_size[1] == 512 else "XL"]:
        check_against_predictor(file, library.EfficientViTSamPredictor(model), size)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_exports_to_graphs_that_equal_torch(saved: tuple[Path, Any], precision: str, tmp_path: Path) -> None:
    source = SamSource(saved[0])
    samples = [CalibrationSample("", draw_picture((300, 200)), "")]

    artifacts = source.export(tmp_path, precision, False, samples, lambda *_: None)
    figures = source.compare(tmp_path, precision, False, lambda *_: None)

    assert [artifact.role for artifact in artifacts] == ["sam.encoder", "sam.decoder"]
    assert {"fp32": 1e-5, "fp16": 2e-2, "int8": 0.5}[precision] > max(figure.value for figure in figures)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("image_encoder.neck.middle.op_list.0.main.spatial_conv.conv.weight"), "lacks"),
        (lambda state: state.pop("image_encoder.norm.bias"), r"it lacks 'image_encoder\.norm\.bias'"),
        (
            lambda state: state.update({"image_encoder.norm.bias": torch.zeros(3)}),
            r"norm\.bias \[3\] instead of \[32\]",
        ),
        (lambda state: state.update({"image_encoder.norm.bias": torch.full((32,), torch.nan)}), "finite"),
    ],
)
def test_a_damaged_file_is_one_line(damage: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    state = make_model("L").state_dict()
    damage(state)
    torch.save(state, tmp_path / "model.pt")

    with pytest.raises(UsageError, match=message) as caught:
        load_segmenter(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
