"""The graphs of each family compute what transformers does: vision towers of any grid, deeper features, precisions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_qwen import make_qwen, save_qwen
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.manifest import Figure
from wise_edge.errors import BundleError, UsageError
from wise_edge.export.options import ExportOptions
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.targets import EDGELLM, ONNX
from wise_edge.export.to_onnx import target, verify
from wise_edge.export.to_onnx.bf16 import stand_in
from wise_edge.export.to_onnx.edit import replace_graph
from wise_edge.export.to_onnx.language import LanguageModel, rotary_axes
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.export.to_onnx.vision import VisionTower
from wise_edge.export.to_tensorrt import plan
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.native.onnxruntime_session import OnnxSession
from wise_edge.policy.graph_io import DEEPSTACK, deepstack_rows, empty_cache, vision_outputs
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.policy.graph import GraphPolicy
from wise_edge.runtimes.policy.torch_policy import TorchPolicy
from wise_edge.scenes import sample

GRIDS = [(8, 8), (6, 10), (12, 4), (2, 2)]
"""Patches along width and height; none but (8, 8) is the grid of the learned positions."""


def quiet(*_: Any) -> None:
    """Hear progress and say nothing."""


def sharpen(model: Any) -> Any:
    """Scale queries and keys up: attention far from uniform shows a mistaken position."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("q_proj.weight", "k_proj.weight", "qkv.weight")):
            parameter.data *= 4
    return model


def see(visual: Any, patches: torch.Tensor, columns: int, rows: int) -> list[torch.Tensor]:
    """Return what transformers' own tower gives: embeddings, and deeper features if there are any."""
    with torch.no_grad():
        seen = visual(patches, grid_thw=torch.tensor([[1, rows, columns]]))
    deeper = getattr(seen, "deepstack_features", None)
    return [seen.pooler_output, *([torch.stack(deeper)] if deeper else [])]


def as_list(outputs: Any) -> list[torch.Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.parametrize(("columns", "rows"), GRIDS)
@pytest.mark.parametrize("family", ONNX.families)
def test_vision_towers_of_any_grid_equal_the_stock_one(family: str, columns: int, rows: int) -> None:
    visual = sharpen(make_qwen(family)).model.visual
    kernel = visual.patch_embed.proj.weight
    patches = torch.randn(columns * rows, kernel[0].numel(), generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        ours = as_list(VisionTower(visual, columns, rows)(patches))

    torch.testing.assert_close(ours, see(visual, patches, columns, rows), rtol=1e-4, atol=1e-4)
    if columns != rows:
        turned = see(visual, patches, rows, columns)
        assert (ours[0] - turned[0]).abs().max() > 1e-2 * ours[0].abs().max()


def test_deeper_features_are_those_of_their_own_layers() -> None:
    """Layers that hand features on are named in any order, and some may name none of the tower's."""
    model = make_qwen("qwen3_vl")
    visual = model.model.visual
    visual.deepstack_visual_indexes = [2, 0]
    patches = torch.randn(64, 1536, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        ours = as_list(VisionTower(visual, 8, 8)(patches))

    torch.testing.assert_close(ours, see(visual, patches, 8, 8), rtol=1e-4, atol=1e-4)


def test_learned_positions_beyond_a_square_are_left_out_as_in_transformers(tmp_path: Path) -> None:
    visual = make_qwen("qwen3_vl").model.visual
    table = visual.pos_embed.weight
    visual.pos_embed = torch.nn.Embedding(len(table) + 3, table.shape[1])
    patches = torch.randn(24, 1536, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        ours = as_list(VisionTower(visual, 6, 4)(patches))

    torch.testing.assert_close(ours, see(visual, patches, 6, 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "axes"),
    [("qwen2_vl", [0, 1, 1, 2, 2, 2, 2, 2]), ("qwen2_5_vl", [0, 1, 1, 2, 2, 2, 2, 2]), ("qwen3_vl", [0, 1, 2] * 4)],
)
def test_rotary_embeddings_are_those_of_transformers_to_the_bit(family: str, axes: list[int]) -> None:
    model = make_qwen(family)
    rotary = model.model.language_model.rotary_emb
    positions = torch.randint(5000, (3, 1, 40), generator=torch.Generator().manual_seed(0))

    assert rotary_axes(rotary).tolist() == axes
    for ours, theirs in zip(LanguageModel(model)._rotate(positions), rotary(torch.zeros(1), positions), strict=True):
        assert torch.equal(ours, theirs)


def test_interleaved_sections_go_on_with_time_once_rows_and_columns_are_used_up() -> None:
    """As published: 24 channels of time, 20 of rows and 20 of columns."""
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    model = make_qwen("qwen3_vl", head_dim=128, rope_parameters=rope)

    assert rotary_axes(model.model.language_model.rotary_emb).tolist() == [*[0, 1, 2] * 20, 0, 0, 0, 0]


@dataclass(frozen=True)
class Exported:
    """A checkpoint and the folder of its graphs in float32."""

    source: PolicyCheckpoint
    folder: Path

    def compare(self, folder: Path | None = None) -> dict[str, Figure]:
        figures = verify.verify_policy(self.source.model, self.source.spec, folder or self.folder)
        return {figure.what: figure for figure in figures}

    def lower(self, folder: Path, precision: str) -> Path:
        """Bring copies of the graphs to a precision, as a bundle for a GPU holds them and a CPU can run them."""
        shutil.copytree(self.folder, folder)
        target._lower(self.source, folder, precision, True, quiet)
        if precision == "bf16":
            for file in folder.glob("*.onnx"):
                replace_graph(file, stand_in)
        return folder

    def errors(self, lowered: Path) -> list[float]:
        """Return the relative error of every output over a picture, a query and its answer: root mean squares."""
        parts = [f"policy.{part}.onnx" for part in ("vision", "decoder")]
        batches = self.source.torch_reference.graph_inputs(self.source.references[0])
        found = []
        for part, batch in zip(parts, batches, strict=True):
            exact, low = (OnnxSession(folder / part).run(batch) for folder in (self.folder, lowered))
            found += [float(np.linalg.norm(low[name] - exact[name]) / np.linalg.norm(exact[name])) for name in exact]
        return found


ONLY_QWEN3 = pytest.mark.parametrize("exported", [pytest.param("qwen3_vl", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2_vl", "qwen3_vl")]
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Graphs of the families that have no bundle in other tests."""
    root = tmp_path_factory.mktemp(request.param)
    checkpoint = save_qwen(make_qwen(request.param, max_position_embeddings=1024), root / "policy")
    source = PolicyCheckpoint(checkpoint, read_calibration(None, 2), quiet)
    (root / "graphs").mkdir()
    target.export_policy(source, root / "graphs", "fp32", False, quiet)
    return Exported(source, root / "graphs")


def test_every_graph_equals_its_checkpoint(exported: Exported) -> None:
    figures = exported.compare()
    assert all(0 < figure.value <= 1e-4 for figure in figures.values()), figures


def test_a_mistake_in_the_rotary_sections_shows(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    rotary = exported.source.model.model.language_model.rotary_emb
    monkeypatch.setattr(rotary, "mrope_section", {8: [2, 1, 5], 12: [6, 3, 3]}[len(rotary.inv_freq)])
    assert not exported.compare()["policy.decoder logits, prefill"].passed


@ONLY_QWEN3
def test_deeper_features_on_the_wrong_tokens_show(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    right = verify.deepstack_rows
    for wrong in (
        lambda spec, tokens, features=None, start=0: right(spec, tokens, features, start + 1),
        lambda spec, tokens, features=None, start=0: right(spec, tokens),
        lambda spec, tokens, features=None, start=0: {DEEPSTACK: right(spec, tokens, features, start)[DEEPSTACK][::-1]},
    ):
        monkeypatch.setattr(verify, "deepstack_rows", wrong)
        figures = exported.compare()
        assert not figures["policy.decoder logits, prefill"].passed


@pytest.mark.parametrize(
    ("precision", "bound"), [("fp16", 0.002), ("bf16", 0.05), ("fp8", 0.2), ("int8", 0.05), ("int4", 0.4)]
)
def test_every_precision_stays_near(exported: Exported, precision: str, bound: float, tmp_path: Path) -> None:
    errors = exported.errors(exported.lower(tmp_path / precision, precision))

    assert all(error < bound for error in errors), errors
    assert max(errors) > bound / 100


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8", "int8", "int4"])
def test_engines_are_built_of_every_precision(exported: Exported, precision: str, tmp_path: Path) -> None:
    """None is run: no GPU. TensorRT for RTX parses the graphs and finds kernels for all of their operators."""
    pytest.importorskip("tensorrt_rtx")
    shutil.copytree(exported.folder, tmp_path / "graphs")
    target._lower(exported.source, tmp_path / "graphs", precision, True, quiet)
    spec = exported.source.spec
    for role in ("policy.vision", "policy.decoder"):
        file = tmp_path / "graphs" / f"{role}.onnx"
        request = EngineRequest(role, file, "source", plan.find_ranges(file, spec), parse_gpu_kinds("sm89"))
        sidecar = build_engine(request, tmp_path / f"{role}.engine", quiet)
        shapes = {array.name: array.shape for array in (*sidecar.inputs, *sidecar.outputs)}
        if spec.deepstack_layers:
            tokens = -1 if role == "policy.decoder" else 16
            assert shapes[DEEPSTACK] == (spec.deepstack_layers, tokens, spec.hidden_size)
        assert (DEEPSTACK in shapes) == (spec.deepstack_layers > 0)


def test_half_precision_keeps_angles_of_far_positions(exported: Exported, tmp_path: Path) -> None:
    """Products of positions and frequencies in 16 bits would be wrong by whole turns."""
    lowered = exported.lower(tmp_path / "fp16", "fp16")
    spec = exported.source.spec
    rng = np.random.default_rng(0)
    batch = {
        "inputs_embeds": 0.5 * rng.standard_normal((1, 30, spec.hidden_size), np.float32),
        "position_ids": rng.integers(5000, 6000, (3, 1, 30)),
        **empty_cache(spec),
        **deepstack_rows(spec, 30),
    }
    exact, half = (OnnxSession(folder / "policy.decoder.onnx").run(batch) for folder in (exported.folder, lowered))
    for name, value in exact.items():
        assert np.abs(half[name] - value).max() < 0.02 * max(1, np.abs(value).max()), name


def test_graphs_write_what_the_checkpoint_writes(exported: Exported) -> None:
    spec, folder = exported.source.spec, exported.folder
    graphs = [OnnxGraph(folder / f"policy.{part}.onnx", threads=1) for part in ("vision", "decoder")]
    ours = GraphPolicy(
        "onnx", spec, {spec.grids[0]: graphs[0]}, graphs[1], folder / "policy.embedding.npy", exported.source.tokenizer
    )
    theirs = TorchPolicy(exported.source.folder)
    scene = sample("test", 0).scene.image

    images = ours.encode(scene), theirs.encode(scene)
    for variant, decoding in (("verbose", Decoding(forced=False)), ("answer", Decoding())):
        request = Request("the red ring", variant, decoding)
        output, expected = ours.generate(images[0], request), theirs.generate(images[1], request)
        assert (output.text, output.finish, output.tokens) == (expected.text, expected.finish, expected.tokens)
        assert output.tokens.decode_steps > 10


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_windows_of_tokens_are_refused_before_the_export(family: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_edgellm")
    window = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}
    for number, entries in enumerate(({}, window)):
        folder = save_qwen(make_qwen(family, **entries), tmp_path / str(number))
        source = PolicyCheckpoint(folder, [], quiet)
        for chosen in (ONNX, EDGELLM):
            if not entries:
                chosen.check_policy(source, ExportOptions())
            else:
                with pytest.raises(UsageError, match="use_sliding_window is true"):
                    chosen.check_policy(source, ExportOptions())


@ONLY_QWEN3
def test_a_tower_without_deeper_features_is_refused_before_a_query(exported: Exported, tmp_path: Path) -> None:
    layer = torch.nn.Linear(1536, 64)
    export_onnx(layer, (torch.zeros(64, 1536),), ["pixel_values"], ["image_embeds"], tmp_path / "v.onnx")
    graph = OnnxGraph(tmp_path / "v.onnx")
    with pytest.raises(BundleError, match="lacks the output deepstack_embeds; export the bundle again"):
        graph.check_outputs(vision_outputs(exported.source.spec))
