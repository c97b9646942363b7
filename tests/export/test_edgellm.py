"""TensorRT Edge-LLM: the checkpoint for it is what was asked for, and its graphs compute what transformers does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

pytest.importorskip("tensorrt_edgellm")
import torch
import transformers

from tiny_qwen import make_qwen, save_qwen
from wise_edge.bundle.roles import EDGELLM_FOLDER
from wise_edge.bundle.store import load, resolve_checkpoint
from wise_edge.cli.main import main
from wise_edge.errors import (
    DeviceError,
    MissingExtraError,
    UsageError,
    VerificationError,
    WiseEdgeError,
)
from wise_edge.export.options import ExportOptions
from wise_edge.export.precisions import EDGELLM_METHODS
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.targets import EDGELLM
from wise_edge.export.to_edgellm import check as edgellm_check
from wise_edge.export.to_edgellm import target as edgellm

EMBEDDED = resolve_checkpoint("embedded", "policy")


def quiet(step: str, share: float | None = None) -> None:
    pass


def _source(folder: Path = EMBEDDED) -> PolicyCheckpoint:
    return PolicyCheckpoint(folder, read_calibration(None, 2), quiet)


@pytest.fixture(scope="module")
def source() -> PolicyCheckpoint:
    return _source()


def _export(source: PolicyCheckpoint, method: str, folder: Path) -> Path:
    """Bring a policy to a method and return the folder of its graphs."""
    out = folder / "bundle"
    out.mkdir()
    list(edgellm.export_edgellm(source, out, method, quiet))
    edgellm._run("tensorrt_edgellm.scripts.export", [str(out / EDGELLM_FOLDER), str(folder / "graphs")], str(folder))
    return folder / "graphs"


@pytest.fixture(scope="module")
def graphs(source: PolicyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded policy's graphs in half precision."""
    return _export(source, "fp16", tmp_path_factory.mktemp("fp16"))


@pytest.mark.slow
def test_the_graphs_compute_what_transformers_does(source: PolicyCheckpoint, graphs: Path) -> None:
    figures = list(edgellm_check.check_numbers(source, graphs, "fp16"))
    assert [figure.what for figure in figures] == ["edgellm vision tower", "edgellm language model"]
    assert all(1e-5 < figure.value <= edgellm_check.BOUND for figure in figures), figures
    edgellm_check.check_operators(graphs / "llm" / "model.onnx", "fp16")


def test_a_product_that_was_left_in_float_shows(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    for rounded, fits in ((("a", "b"), True), (("a",), False)):
        nodes, weights = [], []
        for name, given in (("a", "x"), ("b", "a.y"), ("head", "b.y")):  # the head stays float
            kind = kinds.FLOAT8E4M3FN if name in rounded else kinds.FLOAT
            weights.append(make.make_tensor(name, kind, [2, 2], [1.0] * 4))
            if name in rounded:
                weights.append(make.make_tensor(f"{name}.scale", kinds.FLOAT, [], [1.0]))
                nodes.append(make.make_node("DequantizeLinear", [name, f"{name}.scale"], [f"{name}.float"]))
            source = f"{name}.float" if name in rounded else name
            nodes.append(make.make_node("Transpose", [source], [f"{name}.turned"]))
            nodes.append(make.make_node("MatMul", [given, f"{name}.turned"], [f"{name}.y"]))
        ends = [make.make_tensor_value_info(name, kinds.FLOAT, [2, 2]) for name in ("x", "head.y")]
        file = tmp_path / "model.onnx"
        onnx.save(make.make_model(make.make_graph(nodes, "g", ends[:1], ends[1:], weights)), file)
        if fits:
            edgellm_check.check_operators(file, "fp8")
        else:
            with pytest.raises(VerificationError, match="has 1 products of fp8 and 2 in float"):
                edgellm_check.check_operators(file, "fp8")


def test_a_template_that_writes_another_prompt_is_refused(source: PolicyCheckpoint, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(EMBEDDED, folder)
    edgellm_check.check_template(source, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|vision_end|>", "<|vision_end|>Query: "))
    with pytest.raises(VerificationError, match=r"the chat template of .* writes .*, want "):
        edgellm_check.check_template(source, folder)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["rope", "windows"])
def test_a_mistake_in_the_positions_shows(
    source: PolicyCheckpoint, graphs: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part == "rope":  # time, row and column take each other's places
        real = edgellm_check._rope
        monkeypatch.setattr(edgellm_check, "_rope", lambda source, positions: real(source, positions[[1, 2, 0]]))
    else:  # rows and columns do
        angles = edgellm_check.rotary_angles
        swapped = lambda *grid: angles(*grid).roll(angles(*grid).shape[1] // 4, dims=1)  # noqa: E731
        monkeypatch.setattr(edgellm_check, "rotary_angles", swapped)
    figures = {figure.what: figure for figure in edgellm_check.check_numbers(source, graphs, "fp16")}
    assert not figures["edgellm language model" if part == "rope" else "edgellm vision tower"].passed


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[PolicyCheckpoint, Path]:
    """A Qwen3-VL policy, and its graphs in half precision."""
    root = tmp_path_factory.mktemp("deep")
    folder = save_qwen(make_qwen("qwen3_vl", max_position_embeddings=1024), root / "policy", torch.float16)
    shutil.copyfile(EMBEDDED / "chat_template.jinja", folder / "chat_template.jinja")
    source = _source(folder)
    return source, _export(source, "fp16", root)


@pytest.mark.slow
def test_qwen3_graphs_compute_what_transformers_does(deep: tuple[PolicyCheckpoint, Path]) -> None:
    figures = list(edgellm_check.check_numbers(*deep, "fp16"))
    assert all(1e-5 < figure.value <= edgellm_check.BOUND for figure in figures), figures
    edgellm_check.check_operators(deep[1] / "llm" / "model.onnx", "fp16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrong", "part"),
    [
        ("interpolation", lambda places, shares: (places, shares.flip(1)), "edgellm vision tower"),
        ("rotary_axes", lambda axes: axes.roll(1), "edgellm language model"),
        ("_norm", lambda states: 1.1 * states, "edgellm language model"),
    ],
)
def test_a_mistake_in_what_only_qwen3_has_shows(
    deep: tuple[PolicyCheckpoint, Path], name: str, wrong: Any, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(edgellm_check, name)

    def mistaken(*given: Any) -> Any:
        found = right(*given)
        return wrong(*found) if isinstance(found, tuple) else wrong(found)

    monkeypatch.setattr(edgellm_check, name, mistaken)
    figures = {figure.what: figure for figure in edgellm_check.check_numbers(*deep, "fp16")}
    assert [what for what, figure in figures.items() if not figure.passed] == [part]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fp8", "int8_sq", "nvfp4"])
def test_each_method_leaves_its_operators(source: PolicyCheckpoint, method: str, tmp_path: Path) -> None:
    folder = _export(source, method, tmp_path)
    graph = folder / "llm" / "model.onnx"
    edgellm_check.check_operators(graph, method)
    compared = {figure.what for figure in edgellm_check.check_numbers(source, folder, method)}
    assert compared == {"edgellm vision tower", *(() if method == "nvfp4" else ("edgellm language model",))}
    for other in EDGELLM_METHODS.keys() - {method}:
        with pytest.raises(VerificationError, match=r"left them out|was asked for"):
            edgellm_check.check_operators(graph, other)


@pytest.mark.slow
def test_four_bits_leave_their_operators(tmp_path: Path) -> None:
    """On a model whose widths 128 divides; the embedded one's are not."""
    source = _source(_make_wide(tmp_path / "wide"))
    folder = _export(source, "int4_awq", tmp_path)
    graph = folder / "llm" / "model.onnx"
    edgellm_check.check_operators(graph, "int4_awq")
    assert [figure.what for figure in edgellm_check.check_numbers(source, folder, "int4_awq")] == [
        "edgellm vision tower"
    ]
    with pytest.raises(VerificationError, match="has products of int4_awq, fp16 was asked for"):
        edgellm_check.check_operators(graph, "fp16")


def _make_wide(folder: Path) -> Path:
    config = transformers.AutoConfig.from_pretrained(EMBEDDED)
    config.text_config.update({"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8})
    config.text_config.update({"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2})
    config.vision_config.out_hidden_size = 256
    torch.manual_seed(0)
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    for file in EMBEDDED.iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    shutil.copyfile(EMBEDDED / "generation_config.json", folder / "generation_config.json")
    return folder


@pytest.mark.slow
def test_an_export_is_a_bundle_of_a_checkpoint_and_a_segmenter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--target", "edgellm", "--device", "orin,thor", "--samples", "1", "--out", str(tmp_path / "b")]
    assert main(["export", "--policy", "embedded", "--sam", "embedded", *arguments]) == 0
    bundle = load(tmp_path / "b", verify_hashes=True)
    roles = {artifact.role for artifact in bundle.manifest.artifacts}
    assert {
        "policy.edgellm/config.json",
        "policy.edgellm/model.safetensors",
        "policy.tokenizer",
        "sam.encoder",
    } <= roles
    assert not bundle.manifest.verified  # nothing here runs its queries
    assert "not verified: no query was compared" in capsys.readouterr().err
    judged = {figure.what: figure.at_most for figure in bundle.manifest.verification}
    assert judged["edgellm language model"] == judged["edgellm vision tower"] == edgellm_check.BOUND
    assert bundle.unlisted_files() == []


@pytest.mark.parametrize(
    ("method", "names", "error", "message"),
    [
        ("q4", "orin", UsageError, "unknown --edgellm-quant 'q4'; choose one of fp16, fp8"),
        ("fp8", "thor,orin", DeviceError, "--edgellm-quant fp8 computes with fp8, which orin"),
        ("nvfp4", "orin", DeviceError, "computes with fp4, which orin"),
    ],
)
def test_methods_that_cannot_be(method: str, names: str, error: type[WiseEdgeError], message: str) -> None:
    with pytest.raises(error, match=message):
        EDGELLM.check(_options(method, names))


def test_methods_that_can_be() -> None:
    EDGELLM.check(_options("int4_awq", "orin"))
    EDGELLM.check(_options("nvfp4", "thor"))


def _options(method: str, device: str) -> ExportOptions:
    return ExportOptions(targets=("edgellm",), device=device, edgellm_quant=method)


def test_four_bits_need_widths_that_128_divides(source: PolicyCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs widths of multiples of 128, the policy is 192 wide"):
        list(edgellm.export_edgellm(source, tmp_path, "int4_awq", quiet))


def test_a_head_that_its_config_would_leave_out_is_refused(source: PolicyCheckpoint, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "p")
    weights = safetensors.torch.load_file(EMBEDDED / "model.safetensors")
    embedding = next(value for name, value in weights.items() if name.endswith("embed_tokens.weight"))
    for factor in (1, 2):
        stored = weights | {"lm_head.weight": embedding * factor}
        safetensors.torch.save_file(stored, tmp_path / "p" / "model.safetensors", metadata={"format": "pt"})
        if factor == 1:
            edgellm.check_policy(_source(tmp_path / "p"), "fp16")
        else:
            with pytest.raises(UsageError, match=r"stores a head that differs .* tie_word_embeddings to false"):
                edgellm.check_policy(_source(tmp_path / "p"), "fp16")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(MissingExtraError, match=r"modelopt is not installed; run: pip install 'wise-edge\[edgellm\]'"):
        EDGELLM.check(_options("fp8", "thor"))


def test_the_other_process_is_ended_if_it_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(edgellm, "_LIMIT_S", 0.3)
    with pytest.raises(WiseEdgeError, match=r"tensorrt-edgellm did not end within .* h, and was ended"):
        edgellm._run("timeit", ["-n", "1", "import time; time.sleep(60)"], str(tmp_path))


def test_what_the_other_process_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(WiseEdgeError, match=r"tensorrt-edgellm failed: .*No module named"):
        edgellm._run("wise_edge.no_such_module", [], str(tmp_path))
    arguments: list[Any] = [str(tmp_path / "gone"), str(tmp_path / "out"), "fp16", str(tmp_path)]
    with pytest.raises(WiseEdgeError, match="tensorrt-edgellm failed: "):
        edgellm._run("wise_edge.export.to_edgellm.quantize", arguments, str(tmp_path))
