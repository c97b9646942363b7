"""Exported graphs equal their checkpoints, a wrong one does not pass, and nothing is written but a whole bundle."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from locations import ROOT
from tiny_models import make_policy, make_tokenizer
from wise_edge.bundle.manifest import Figure
from wise_edge.bundle.store import load, resolve_checkpoint
from wise_edge.cli.export import EndToEnd
from wise_edge.cli.main import main
from wise_edge.errors import UsageError, VerificationError
from wise_edge.export import pipeline
from wise_edge.export.options import ExportOptions
from wise_edge.export.provenance import describe_checkpoint
from wise_edge.export.to_onnx import edit as onnx_edit
from wise_edge.export.to_onnx import segmenter as sam_target
from wise_edge.export.to_onnx import target as onnx_target
from wise_edge.export.to_onnx import verify
from wise_edge.export.to_onnx.language import embedding_table
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.export.to_onnx.vision import VisionTower
from wise_edge.files.hashing import hash_file
from wise_edge.policy.checkpoint import load_policy
from wise_edge.runtimes.session import Session


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make exporting a graph an error: what is refused must be refused before."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a graph was exported")

    for module in (onnx_target, sam_target):
        monkeypatch.setattr(module, "export_onnx", fail)


@pytest.mark.parametrize(("size", "window"), [(112, 112), (112, 56), (140, 112)])
def test_vision_tower_with_constant_windows_equals_the_stock_one(size: int, window: int) -> None:
    side = size // 14
    visual = make_policy(make_tokenizer(), window=window).model.visual
    patches = torch.randn(side * side, 1176, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        ours = VisionTower(visual, side, side)(patches)
        stock = visual(patches, grid_thw=torch.tensor([[1, side, side]])).pooler_output

    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)


def test_every_case_was_compared_and_agrees(tiny_bundle: Path) -> None:
    figures = {figure.what: figure for figure in load(tiny_bundle, verify_hashes=True).manifest.verification}

    assert {what for what in figures if "decoder" in what} == {
        *(
            f"policy.decoder {arrays}, {case}"
            for arrays in ("logits", "keys and values")
            for case in ("prefill, empty past", "decode", "prefill")
        ),
        *(f"sam.decoder, box and {count} points" for count in (0, 1, 2, 3, 8)),
        "sam.decoder, box and 2 points and a mask",
        "sam.decoder, box and 2 points and a mask, 3 prompts",
    }
    assert {"policy.vision", "policy.embedding", "sam.encoder"} < set(figures)
    queries = {what: figure for what, figure in figures.items() if what.startswith("onnx: ")}
    assert queries["onnx: mask IoU with torch, mean"].at_least == 0.99
    assert all(figure.passed for figure in figures.values())
    assert all(figure.at_most == 1e-4 for what, figure in figures.items() if what not in queries)


def test_signatures_are_the_contract(tiny_bundle: Path) -> None:
    bundle = load(tiny_bundle)
    graphs = {role: onnx.load(bundle.file(role)).graph for role in ("policy.decoder", "sam.decoder")}

    assert _shapes(graphs["policy.decoder"].input)["past_value_1"] == [1, 2, "past", 16]
    assert _shapes(graphs["policy.decoder"].output)["logits"][:2] == [1, 1]
    assert _shapes(graphs["sam.decoder"].input) == {
        "image_embeddings": [1, 32, 8, 8],
        "point_coords": ["prompts", "points", 2],
        "point_labels": ["prompts", "points"],
        "mask_input": ["prompts", 1, 32, 32],
        "has_mask_input": ["prompts"],
    }
    assert _shapes(graphs["sam.decoder"].output) == {
        "low_res_masks": ["prompts", 4, 32, 32],
        "iou_predictions": ["prompts", 4],
    }


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in values
    }


def test_weights_are_stored_in_half_precision_without_loss(tiny_bundle: Path) -> None:
    artifacts = load(tiny_bundle).manifest.artifacts

    assert {artifact.precision for artifact in artifacts} == {"fp32", "fp16", ""}  # fp16: the token embedding


def test_nothing_of_this_machine_is_in_the_files(tiny_bundle: Path) -> None:
    for file in tiny_bundle.glob("*.onnx"):
        content = file.read_bytes()
        assert b"site-packages" not in content
        assert str(ROOT).encode() not in content


@pytest.mark.parametrize("part", ["rotary sections", "a weight", "the vision window"])
def test_a_wrong_graph_does_not_pass(tiny_bundle: Path, tiny_checkpoints: tuple[Path, Path], part: str) -> None:
    bundle = load(tiny_bundle)
    model = load_policy(tiny_checkpoints[0])
    if part == "rotary sections":
        model.model.language_model.rotary_emb.mrope_section = [2, 1, 5]
    elif part == "a weight":
        model.model.language_model.layers[1].self_attn.k_proj.weight.data *= 1.02
    else:
        model.model.visual.window_size = 56

    figures = verify.verify_policy(model, bundle.manifest.policy, bundle.directory)

    with pytest.raises(VerificationError, match="differs from the checkpoint"):
        verify.check_figures(list(figures))


def test_a_figure_that_is_no_number_does_not_pass() -> None:
    with pytest.raises(VerificationError, match="nan"):
        verify.check_figures([Figure("policy.vision", float("nan"), "", at_most=1e-4)])


def test_weights_that_half_precision_cannot_hold_stay_whole(tmp_path: Path) -> None:
    layer = torch.nn.Linear(32, 32)

    export_onnx(layer, (torch.zeros(1, 32),), ["x"], ["y"], tmp_path / "layer.onnx")

    stored = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "layer.onnx").graph.initializer}
    assert set(stored.values()) == {onnx.TensorProto.FLOAT}


def test_an_export_lets_go_of_the_weights(tmp_path: Path) -> None:
    """Those of a large model and of its graphs are too much together."""
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64))
    weight = weakref.ref(layer[0].weight)

    export_onnx(layer, (torch.zeros(1, 64),), ["x"], ["y"], tmp_path / "layer.onnx")
    del layer
    gc.collect()

    assert weight() is None


def test_the_same_module_gives_the_same_bytes(tmp_path: Path) -> None:
    visual = make_policy(make_tokenizer()).model.visual
    files = [tmp_path / name for name in ("first.onnx", "second.onnx")]

    for file in files:
        module = VisionTower(visual, 8, 8)
        export_onnx(module, (torch.zeros(64, 1176),), ["pixel_values"], ["image_embeds"], file)

    assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_beyond_one_file_lie_in_a_second_and_are_part_of_the_bundle(
    tiny_checkpoints: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_edit, "LARGEST_FILE", 20_000)
    policy, sam = tiny_checkpoints

    target, check = tmp_path / "bundle", EndToEnd(str(sam), tmp_path / "bundle")
    pipeline.export_bundle(
        str(policy), str(sam), target, ExportOptions(samples=1), verify=check, progress=lambda *_: None
    )

    bundle = load(target)
    assert bundle.manifest.verified
    sizes = {artifact.role: artifact.bytes for artifact in bundle.manifest.artifacts}
    assert sizes["policy.decoder.data"] > 20_000 > sizes["policy.decoder"]
    image = np.zeros((20, 30, 3), np.uint8)
    assert Session.from_bundle(target).segment(image, "anything").text


@pytest.mark.parametrize("exact", [True, False])
def test_weights_of_a_second_file_are_those_of_one(
    exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    if exact:
        layer.weight.data = layer.weight.data.half().float()
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    outputs = []
    for largest in (onnx_edit.LARGEST_FILE, 1000):
        monkeypatch.setattr(onnx_edit, "LARGEST_FILE", largest)
        file = tmp_path / f"{largest}.onnx"
        export_onnx(layer, (torch.zeros(1, 64),), ["x"], ["y"], file)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"x": x})[0])
    assert (tmp_path / "1000.onnx.data").stat().st_size == 64 * 64 * (2 if exact else 4)
    assert (outputs[0] == outputs[1]).all()


def test_the_embedding_is_half_only_where_that_loses_nothing() -> None:
    model = make_policy(make_tokenizer())
    assert embedding_table(model).dtype == np.float16

    model.get_input_embeddings().weight.data[0, 0] = 1 / 3
    assert embedding_table(model).dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "found"),
    [
        ("fp16", {"policy.vision": "fp16", "policy.decoder": "fp16", "sam.encoder": "fp16", "sam.decoder": "fp16"}),
        ("int8", {"policy.vision": "int8", "policy.decoder": "int8", "sam.encoder": "int8", "sam.decoder": "fp32"}),
        ("fp8", {"policy.vision": "fp8", "policy.decoder": "fp8", "sam.encoder": "fp8", "sam.decoder": "fp32"}),
    ],
)
def test_lower_precision_is_judged_by_masks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], precision: str, found: dict[str, str]
) -> None:
    options = ["--onnx-precision", precision, "--sam-precision", precision, "--samples", "2", "--json"]

    code = main(["export", "--policy", "embedded", "--sam", "embedded", "--out", str(tmp_path / "b"), *options])

    out, err = capfd.readouterr()
    assert code == 0, err
    manifest = load(tmp_path / "b", verify_hashes=True).manifest
    assert json.loads(out)["sam"]["family"] == "segment_anything"
    assert {a.role: a.precision for a in manifest.artifacts if a.format == "onnx"} == found
    bounds = {figure.what: figure.at_least for figure in manifest.verification}
    assert bounds["onnx: mask IoU with torch, mean"] == {"fp16": 0.99}.get(precision, 0.95)
    judged = {figure.what.split(",")[0] for figure in manifest.verification if figure.at_most is not None}
    assert judged == {"policy.embedding"} | (set() if precision == "fp16" else {"sam.decoder"})


@pytest.fixture
def stubbed_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_graphs(monkeypatch)


@pytest.mark.usefixtures("stubbed_graphs")
def test_the_command_writes_a_bundle_and_one_document(
    tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy, sam = tiny_checkpoints

    code = main(["export", "--policy", str(policy), "--sam", str(sam), "--out", str(tmp_path / "b"), "--json"])

    out, err = capfd.readouterr()
    assert code == 0, err
    manifest = tmp_path / "b" / "bundle.json"
    assert json.loads(out) == json.loads(manifest.read_text()) | {"sha256": hash_file(manifest)}
    assert all(line.endswith("...") for line in err.splitlines())


def stub_graphs(monkeypatch: pytest.MonkeyPatch, value: float = 0.0) -> None:
    """Leave out what takes seconds and is tested above; keep everything around it."""

    def export(module: Any, example: Any, inputs: Any, outputs: Any, path: Path, dynamic: Any = None) -> None:
        path.write_bytes(b"graph")

    figures = [Figure("policy.vision", value, "", at_most=1e-4)]
    for module in (onnx_target, sam_target):
        monkeypatch.setattr(module, "export_onnx", export)
    monkeypatch.setattr(verify, "verify_policy", lambda *_: figures)
    monkeypatch.setattr(verify, "verify_sam", lambda *_: figures)
    monkeypatch.setattr(EndToEnd, "__call__", lambda *_: figures)


def test_a_failed_comparison_writes_nothing(
    tiny_checkpoints: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy, sam = tiny_checkpoints
    stub_graphs(monkeypatch, value=0.5)

    assert main(["export", "--policy", str(policy), "--sam", str(sam), "--out", str(tmp_path / "b")]) == 5

    assert "policy.vision 0.5" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--policy", "embedded", "--sam", "embedded", "--out", "b", "--target", "onnx,tflite"]

    assert main(arguments) == 2
    assert "unknown target 'tflite'; choose onnx, gguf" in capsys.readouterr().err


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.parametrize("missing", ["policy", "sam"])
def test_a_missing_checkpoint_is_named(
    tiny_checkpoints: tuple[Path, Path], tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = dict(zip(("policy", "sam"), map(str, tiny_checkpoints), strict=True)) | {missing: str(tmp_path / "none")}

    code = main(["export", "--policy", folders["policy"], "--sam", folders["sam"], "--out", str(tmp_path / "b")])

    assert code == 2
    assert f"--{missing}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_graphs")
def test_a_bundle_is_not_replaced_without_force(
    tiny_bundle: Path, tiny_checkpoints: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    policy, sam = map(str, tiny_checkpoints)

    assert main(["export", "--policy", policy, "--sam", sam, "--out", str(tiny_bundle)]) == 2
    assert "--force" in capsys.readouterr().err


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", '{"model_type": "llama"}', "supported are qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5"),
        ("prompts.json", "{}", "prompt set"),
        ("tokenizer.json", "{", "is not JSON"),
        ("model.safetensors", "weights", "damaged or cut short"),
    ],
)
def test_a_damaged_policy_is_one_line(
    tiny_checkpoints: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str,
    words: str,
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoints[0], damaged)
    (damaged / file).write_text(content)

    code = main(["export", "--policy", str(damaged), "--sam", str(tiny_checkpoints[1]), "--out", str(tmp_path / "b")])

    assert code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_weight_that_is_not_there_is_named(tiny_checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoints[0], tmp_path / "damaged")
    file = tmp_path / "damaged" / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    del weights[next(name for name in weights if name.endswith("model.norm.weight"))]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(UsageError, match=r"lacks 1 weight .*norm\.weight"):
        load_policy(tmp_path / "damaged")


def test_shipped_checkpoints_are_recorded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, part in (("embedded", "policy"), ("embedded", "sam"), ("embedded-mobile-sam", "sam")):
        assert describe_checkpoint(name, resolve_checkpoint(name, part), part)[part] == name
    shutil.copytree(resolve_checkpoint("embedded-mobile-sam", "sam"), "own")
    assert describe_checkpoint("own", Path("own"), "sam")["sam"] == str(tmp_path / "own")
