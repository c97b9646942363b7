"""MobileSAM: the published file's architecture by its shapes, and graphs and masks equal to its own code's."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import MOBILE_SAM, make_mobile_sam
from wise_edge.errors import UsageError
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.metrics import mask_iou
from wise_edge.planning.sizes import measure_sam
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.sam import mobile_sam
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import import_library
from wise_edge.sam.mobile_sam import MobileSamArchitecture, build_mobile_sam, read_architecture, save_mobile_sam
from wise_edge.sam.published import infer
from wise_edge.scenes.sampling import sample

PUBLISHED_SIZE = 1024
PROMPT = MaskPrompt((60, 40, 150, 160), ((100, 100), (120, 90)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a small model."""
    folder = tmp_path_factory.mktemp("mobile-sam")
    save_mobile_sam(make_mobile_sam(), MOBILE_SAM, folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    SamSource(checkpoint).export(out, "fp32", False, [], lambda *_: None)
    return out


def theirs(architecture: MobileSamArchitecture) -> Any:
    """The package's own encoder, which exists for 1024 px, 256 channels and a last width of 320 alone."""
    a = architecture
    return import_library("mobile_sam.modeling").TinyViT(
        img_size=1024, embed_dims=[*a.encoder_dims], depths=[*a.encoder_depths], num_heads=[*a.encoder_heads],
        window_sizes=[*a.window_sizes], mlp_ratio=a.mlp_ratio, drop_path_rate=0.0,
    )  # fmt: skip


def test_the_published_file_is_recognized_and_holds_nothing_unknown() -> None:
    """The registry's vit_t is what mobile_sam.pt holds: 10.1 M weights, 0.3 M of them in a classifier."""
    state = import_library("mobile_sam").sam_model_registry["vit_t"]().state_dict()
    found = MobileSamArchitecture(**infer(Path("mobile_sam.pt"), mobile_sam.TITLE, state, mobile_sam._infer))
    ours = build_mobile_sam(found).state_dict()

    assert replace(found, encoder_heads=(2, *found.encoder_heads[1:]), window_sizes=(7, *found.window_sizes[1:])) == (
        MobileSamArchitecture(multimask=True)
    )
    rest = {name: tensor for name, tensor in state.items() if "image_encoder.head." not in name}
    rest = {name: tensor for name, tensor in rest.items() if "norm_head" not in name}
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in rest.items()}
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == 10.1


def test_a_file_has_the_embeddings_of_the_packages_own_model(tmp_path: Path) -> None:
    small = replace(
        MobileSamArchitecture(), encoder_dims=(4, 8, 8, 320), encoder_depths=(1, 1, 1, 1), encoder_heads=(1, 2, 2, 4),
        window_sizes=(7, 7, 14, 7), mlp_ratio=1.0,
    )  # fmt: skip
    model = make_mobile_sam(small)
    stock = theirs(small)
    own = {f"image_encoder.{name}": tensor for name, tensor in stock.state_dict().items()}
    weights = {**own, **model.state_dict()}  # the classifier's are the package's
    stock.load_state_dict({name.removeprefix("image_encoder."): weights[name] for name in own})
    stock.eval()
    file = tmp_path / "renamed.pt"
    torch.save(weights, file)
    image = torch.randn(1, 3, PUBLISHED_SIZE, PUBLISHED_SIZE, generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        expected, found = stock(image), load_segmenter(file).image_encoder(image)

    assert torch.equal(found, expected) and expected.std() > 0.1
    assert read_sam_spec(file).input_size == PUBLISHED_SIZE and read_sam_spec(file).multimask


def test_a_folder_restores_the_model_that_it_was_saved_from(checkpoint: Path) -> None:
    model, spec = make_mobile_sam(), read_sam_spec(checkpoint)
    loaded = load_segmenter(checkpoint)

    assert read_architecture(checkpoint) == MOBILE_SAM
    assert (spec.family, spec.input_size, spec.low_res_size, spec.multimask) == ("mobile_sam", 128, 32, False)
    for name, tensor in loaded.state_dict().items():
        expected = model.state_dict()[name]
        assert torch.equal(tensor, expected if "running" in name or "tracked" in name else expected.half().float())
    assert not loaded.training


def test_learned_biases_count_as_soon_as_they_are_loaded() -> None:
    """The package's attention reads them when it is put into evaluation mode, and keeps what it read."""
    fresh, model = build_mobile_sam(MOBILE_SAM), make_mobile_sam()
    fresh.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(fresh.image_encoder(image), model.image_encoder(image))


def test_graphs_equal_torch(checkpoint: Path, exported: Path) -> None:
    figures = SamSource(checkpoint).compare(exported, "fp32", False, lambda *_: None)
    assert all(figure.value <= 1e-5 for figure in figures), figures


@pytest.mark.parametrize("shape", [(128, 128), (150, 224), (60, 33)])
def test_masks_are_those_of_the_predictor(checkpoint: Path, exported: Path, shape: tuple[int, int]) -> None:
    graphs = [OnnxGraph(exported / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
    image = np.resize(sample("test", 3).scene.image, (*shape, 3))
    for backend in (ours := GraphMask("onnx", read_sam_spec(checkpoint), *graphs)), open_torch_mask(checkpoint):
        found = backend.decode(backend.encode(image), PROMPT)
        if backend is ours:
            expected = found
    assert found.mask.shape == shape and 0 < found.mask.mean() < 1
    assert mask_iou(found.mask, expected.mask) > 0.98  # images are rounded to bytes on their way to the square
    assert found.score == pytest.approx(expected.score, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_keeps_the_features(checkpoint: Path, exported: Path, tmp_path: Path, precision: str) -> None:
    SamSource(checkpoint).export(tmp_path, precision, False, read_calibration(None, 4), lambda *_: None)
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)).numpy()
    full, lower = (OnnxGraph(out / "sam.encoder.onnx").run({"image": image}) for out in (exported, tmp_path))
    error = np.abs(lower["image_embeddings"] - full["image_embeddings"]).max() / np.abs(full["image_embeddings"]).max()
    assert 0 < error < (0.01 if precision == "fp16" else 0.2)


def test_its_memory_is_planned(checkpoint: Path) -> None:
    sizes = measure_sam(checkpoint)
    weights = sum(math.prod(tensor.shape) for tensor in load_segmenter(checkpoint).state_dict().values())
    assert sizes.weights == weights and sizes.largest == 32 * 32 * 8 * 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_encoder.neck.0.weight": None}, r"lacks 'image_encoder.neck.0.weight'; pass"),
        ({"image_encoder.layers.1.gate": torch.ones(1)}, r"has besides 'image_encoder.layers.1.gate'; pass"),
        (
            {"image_encoder.neck.1.bias": torch.ones(3)},
            r"has in another shape 'image_encoder.neck.1.bias \[3\] instead",
        ),
        ({"image_encoder.layers.2.blocks.0.attn.attention_biases": None}, "lacks .*attention_biases"),
        ({"image_encoder.layers.0.blocks.0.conv1.c.weight": torch.ones(2)}, "other shapes than those of MobileSAM"),
        ({"image_encoder.neck.1.bias": torch.full((64,), torch.nan)}, "not finite"),
    ],
)
def test_a_file_of_another_revision_names_the_tensors_that_differ(
    tmp_path: Path, change: dict[str, torch.Tensor | None], words: str
) -> None:
    state = make_mobile_sam().state_dict() | change
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "mobile_sam.pt")
    with pytest.raises(UsageError, match=words) as caught:
        load_segmenter(tmp_path / "mobile_sam.pt")
    assert "\n" not in str(caught.value)


def test_timms_own_models_stay_in_its_registry() -> None:
    program = (
        "from tiny_models import make_mobile_sam; make_mobile_sam(); import timm; "
        "print(timm.model_entrypoint('tiny_vit_5m_224').__module__)"
    )
    paths = ";".join(f"sys.path.insert(0, {str(path)!r})" for path in sys.path if path)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; {paths}; {program}"], capture_output=True, text=True
    )
    assert (run.stdout.strip(), run.stderr) == ("timm.models.tiny_vit", "")
