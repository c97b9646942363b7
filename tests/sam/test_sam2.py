"""SAM 2 checkpoints export to graphs that equal transformers, and damaged ones are one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tiny_models import make_sam2
from tiny_sam2_kin import make_edgetam, make_sam3
from wise_edge.errors import UsageError
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.files.mapped import MappedFiles
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.grid import GridOptions
from wise_edge.runtimes.mask.torch_mask import TorchSam2, open_torch_mask
from wise_edge.runtimes.segmenter import Segmenter
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.scenes import sample

PROMPT = MaskPrompt((30, 40, 150, 160), ((90, 100), (60, 70)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam2")
    make_sam2().save_pretrained(folder)
    return folder


KIN: dict[str, Callable[[], Any]] = {"sam2": make_sam2, "edgetam": make_edgetam, "sam3_tracker": make_sam3}


@pytest.fixture(scope="module", params=KIN)
def kin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each family built like SAM 2."""
    folder = tmp_path_factory.mktemp(request.param)
    KIN[request.param]().save_pretrained(folder)
    assert read_sam_spec(folder).family == request.param
    return folder


@pytest.fixture(scope="module")
def exported(kin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's graphs."""
    folder = tmp_path_factory.mktemp("graphs")
    SamSource(kin).export(folder, "fp32", False, [], lambda *_: None)
    return folder


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "copied")


def edit_config(folder: Path, part: str, **entries: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[part] |= entries
    file.write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    weights = safetensors.torch.load(file.read_bytes())
    change(weights)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("threshold", [0.0, 1.1], ids=["the single mask", "the best of three"])
def test_graphs_equal_torch(copied: Path, tmp_path: Path, threshold: float) -> None:
    edit_config(copied, "mask_decoder_config", dynamic_multimask_stability_thresh=threshold)
    source = SamSource(copied)

    artifacts = source.export(tmp_path, "fp32", False, [], lambda *_: None)
    figures = source.compare(tmp_path, "fp32", False, lambda *_: None)

    assert [artifact.role for artifact in artifacts] == ["sam.encoder", "sam.decoder"]
    assert [figure.what for figure in figures] == [
        "sam.encoder",
        *(f"sam.decoder, box and {count} points" for count in (0, 1, 2, 3, 8)),
        "sam.decoder, box and 2 points and a mask",
        "sam.decoder, box and 2 points and a mask, 3 prompts",
    ]
    assert all(figure.passed and figure.at_most == 1e-4 for figure in figures)


def test_graphs_of_each_family_equal_torch(kin: Path, exported: Path) -> None:
    figures = SamSource(kin).compare(exported, "fp32", False, lambda *_: None)
    assert max(figure.value for figure in figures) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_graphs_of_lower_precision_are_near_torch(kin: Path, precision: str, tmp_path: Path) -> None:
    source, samples = SamSource(kin), [CalibrationSample("", sample("test", 3).scene.image, "")]
    source.export(tmp_path, precision, False, samples, lambda *_: None)
    figures = source.compare(tmp_path, precision, False, lambda *_: None)
    error = max(figure.value for figure in figures)
    # Random weights tell of a broken layer, not of a mask's quality, which docs/segmenters.md has of trained ones.
    assert 1e-5 < error < (0.1 if precision == "fp16" else 0.8)


@pytest.mark.parametrize("shape", [(64, 64), (150, 224), (40, 33)])
def test_masks_are_those_of_transformers(kin: Path, exported: Path, shape: tuple[int, int]) -> None:
    graphs = [OnnxGraph(exported / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
    image = np.resize(sample("test", 3).scene.image, (*shape, 3))
    ours, stock = GraphMask("onnx", read_sam_spec(kin), *graphs), open_torch_mask(kin)
    assert isinstance(stock, TorchSam2)

    outputs = []
    for backend in (ours, stock):
        encoded = backend.encode(image)
        first = backend.decode(encoded, PROMPT)
        outputs.append((first, backend.decode(encoded, replace(PROMPT, previous=first.logits))))

    for got, expected in zip(*outputs, strict=True):
        assert got.mask.shape == shape
        assert mask_iou(got.mask, expected.mask) > 0.98  # images are rounded to bytes on their way to the square
        assert got.score == pytest.approx(expected.score, abs=0.01)
        assert 0 < got.mask.mean() < 1
    assert np.abs(outputs[0][0].logits - outputs[0][1].logits).max() > 0.01


def test_several_prompts_get_the_masks_of_single_ones(kin: Path, exported: Path) -> None:
    graphs = [OnnxGraph(exported / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
    for backend in (GraphMask("onnx", read_sam_spec(kin), *graphs), open_torch_mask(kin)):
        encoded = backend.encode(sample("test", 3).scene.image)
        first = backend.decode(encoded, PROMPT)
        moved = [replace(PROMPT, box=(30, 40, 150 - 9 * step, 160)) for step in range(4)]
        for points, previous in ((PROMPT.points, None), (PROMPT.points, first.logits), ((), None)):
            prompts = [replace(prompt, points=points, previous=previous) for prompt in moved]
            single = [backend.decode(encoded, prompt) for prompt in prompts]

            together = backend.decode_many(encoded, prompts)

            for one, of_many in zip(single, together, strict=True):
                np.testing.assert_allclose(one.logits, of_many.logits, atol=1e-3)
                assert one.score == pytest.approx(of_many.score, abs=1e-4)
            assert len({output.score for output in together}) == 4


def test_the_published_video_checkpoints_are_read(tmp_path: Path) -> None:
    video = make_sam2(video=True)
    video.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"

    loaded = load_segmenter(tmp_path).state_dict()

    saved = video.state_dict()
    assert read_sam_spec(tmp_path).family == "sam2"
    assert all(torch.equal(loaded[name], saved[name]) for name in loaded)


def test_means_are_the_processors(copied: Path) -> None:
    assert read_sam_spec(copied).pixel_mean == (123.675, 116.28, 103.53)

    (copied / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.1] * 3}))

    assert read_sam_spec(copied).pixel_mean == (127.5,) * 3
    assert read_sam_spec(copied).pixel_std == (25.5,) * 3


TOKEN = "mask_decoder.iou_token.weight"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: edit_weights(f, lambda w: w.pop(TOKEN)), f"lacks the weight {TOKEN}"),
    "nan": (
        lambda f: edit_weights(f, lambda w: w[TOKEN].fill_(torch.nan)),
        f"{TOKEN} holds values that are not finite",
    ),
    "shape": (lambda f: edit_weights(f, lambda w: w.update({TOKEN: torch.ones(2, 2)})), "cannot be loaded"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"cut"), "damaged or cut short"),
    "gone": (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
    "oblong": (lambda f: edit_config(f, "prompt_encoder_config", image_size=[64, 32]), "only square inputs"),
    "processor": (lambda f: (f / "preprocessor_config.json").write_text("{}"), "image_mean"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(copied: Path, case: str) -> None:
    damage, words = DAMAGE[case]
    damage(copied)

    with pytest.raises(UsageError, match=words) as caught:
        SamSource(copied)
    assert "\n" not in str(caught.value)


def test_masks_of_a_grid_are_those_of_its_points(kin: Path, exported: Path) -> None:
    graphs = [OnnxGraph(exported / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
    ours, stock = GraphMask("onnx", read_sam_spec(kin), *graphs), open_torch_mask(kin)
    image = np.resize(sample("test", 3).scene.image, (120, 160, 3))
    image.flags.writeable = False  # as those that commands read
    options = GridOptions(4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    for backend in (ours, stock):
        encoded = backend.encode(image)
        made = Segmenter(backend, MappedFiles()).generate(image, options)
        assert made.made == 48
        for point in {each.point_coords for each in made.masks}:
            best = backend.decode(encoded, MaskPrompt(points=point))
            alike = [each for each in made.masks if each.point_coords == point]
            assert len(alike) <= 3
            same = [each for each in alike if each.predicted_iou == pytest.approx(best.score, abs=1e-4)]
            assert any(np.count_nonzero(each.mask != best.mask) <= 2 for each in same)


@pytest.mark.parametrize("multimask", [False, True])
def test_points_alone_prompt_as_in_transformers(kin: Path, exported: Path, multimask: bool) -> None:
    graphs = [OnnxGraph(exported / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
    ours, stock = GraphMask("onnx", read_sam_spec(kin), *graphs), open_torch_mask(kin)
    image = sample("test", 3).scene.image
    prompts = [MaskPrompt(points=((x, 90), (x, 60))[:count]) for count in (1, 2) for x in (60, 110, 140)]

    found, expected = (list(mask.decode_raw(mask.encode(image), prompts, multimask)) for mask in (ours, stock))

    model, encoded = load_segmenter(kin), stock.encode(image)
    for call, other, count in zip(found, expected, (1, 2), strict=True):
        points = torch.tensor([[each.points] for each in prompts if len(each.points) == count]).float()
        scaled = points * read_sam_spec(kin).input_size / torch.tensor([float(image.shape[1]), float(image.shape[0])])
        with torch.no_grad():
            theirs = model(
                image_embeddings=[each.expand(3, -1, -1, -1) for each in encoded.features],
                input_points=scaled,
                input_labels=torch.ones(scaled.shape[:3], dtype=torch.int32),
                multimask_output=multimask,
            )
        np.testing.assert_allclose(other.logits, theirs.pred_masks[:, 0].numpy(), atol=1e-4)
        np.testing.assert_allclose(other.scores, theirs.iou_scores[:, 0].numpy(), atol=1e-4)
        np.testing.assert_allclose(call.logits, other.logits, atol=0.05)  # the image is rounded to bytes on its way
        assert call.logits.shape[:2] == (3, 3 if multimask else 1)
