"""`--target gguf` from checkpoint to bundle: types, importance, calibration, adapters, and a gate that closes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import peft
import pytest
import torch
from PIL import Image

from tiny_qwen import FAMILIES, make_qwen, save_qwen
from wise_edge.bundle.manifest import Figure
from wise_edge.bundle.store import load
from wise_edge.cli.export import EndToEnd
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.precisions import QUANTIZATION_TYPES
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.source.reference import TorchReference
from wise_edge.export.to_gguf.convert import PolicyGguf, read_config
from wise_edge.export.to_gguf.importance import measure_importance
from wise_edge.export.to_gguf.quantize import quantize_gguf, tensor_types
from wise_edge.export.to_onnx import segmenter as sam_target
from wise_edge.files.hashing import hash_file
from wise_edge.native.llama import LlamaModel
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.runtimes.session import Session


def quiet(*_: Any) -> None:
    """Hear progress and say nothing."""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint a family, with room for prompts."""
    root = tmp_path_factory.mktemp("policies")
    return {
        family: save_qwen(make_qwen(family, max_position_embeddings=1024), root / family, torch.float16)
        for family in FAMILIES
    }


@pytest.fixture
def without_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the segmenter's graphs, which have their own tests, and what runs them."""

    def export(module: Any, example: Any, inputs: Any, outputs: Any, path: Path, dynamic: Any = None) -> None:
        path.write_bytes(b"graph")

    monkeypatch.setattr(sam_target, "export_onnx", export)
    monkeypatch.setattr(sam_target.SamSource, "compare", lambda *_: [])
    queries = [Figure("llama: mask IoU with torch, mean", 1.0, "IoU", at_least=0.99)]
    monkeypatch.setattr(EndToEnd, "__call__", lambda *_: queries)


def export(policy: Path, out: Path, *options: str) -> int:
    arguments = ["export", "--policy", str(policy), "--sam", "embedded", "--target", "gguf", "--samples", "2"]
    return main([*arguments, "--out", str(out), *options])


@pytest.mark.usefixtures("without_sam")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_becomes_a_compared_bundle(policies: dict[str, Path], tmp_path: Path, family: str) -> None:
    assert export(policies[family], tmp_path / "b", "--quant", "F32", "--vision-quant", "F32") == 0

    manifest = load(tmp_path / "b", verify_hashes=True).manifest
    precisions = {artifact.role: artifact.precision for artifact in manifest.artifacts}
    figures = {figure.what: figure for figure in manifest.verification}
    assert (manifest.policy.family, manifest.verified) == (family, True)
    assert (precisions["policy.gguf"], precisions["policy.mmproj"]) == ("F32", "F32")
    assert figures["policy.gguf greedy tokens that are torch's"].value == 1.0
    assert 0 < figures["policy.gguf logits"].value <= 1e-3
    assert not list((tmp_path / "b").glob("*.lossless"))


@pytest.mark.slow
def test_both_targets_make_one_bundle_the_same_every_time(
    policies: dict[str, Path],
    tmp_path: Path,
    tiny_checkpoints: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    policy, sam = str(policies["qwen2_5_vl"]), str(tiny_checkpoints[1])
    options = ExportOptions(targets=("onnx", "gguf"), quant="Q8_0", samples=2)

    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        export_bundle(policy, sam, tmp_path / folder / "b", options, verify=None, progress=quiet)

    roles = {artifact.role for artifact in load(tmp_path / "first" / "b").manifest.artifacts}
    assert {"policy.gguf", "policy.mmproj", "policy.decoder", "policy.vision"} < roles
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / n / "b").iterdir()} for n in ("first", "second"))
    assert first == second


def test_weights_of_four_bits_are_verified_by_complete_queries(
    policies: dict[str, Path], tiny_checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    policy, sam = str(policies["qwen2_5_vl"]), str(tiny_checkpoints[1])
    options = ExportOptions(targets=("onnx", "gguf"), onnx_precision="int4", quant="Q4_0", samples=2)

    check = EndToEnd(sam, tmp_path / "b")
    export_bundle(policy, sam, tmp_path / "b", options, verify=check, progress=quiet)

    bundle = load(tmp_path / "b")
    figures = {figure.what: figure for figure in bundle.manifest.verification}
    for backend in ("onnx", "llama"):
        assert 0 <= figures[f"{backend}: mask IoU with torch, mean"].value <= 1
        assert figures[f"{backend}: mask IoU with torch, mean"].at_least is None  # reported only
    assert bundle.manifest.verified
    decoder = onnx.load(bundle.file("policy.decoder"))
    types = [tensor.data_type for tensor in decoder.graph.initializer]
    assert types.count(onnx.TensorProto.INT4) == 3 * 7  # every matrix of the three layers
    assert types.count(onnx.TensorProto.INT8) == 1  # the head
    assert bundle.artifact("policy.vision").precision == "int8"
    assert bundle.artifact("policy.gguf").precision == "Q4_0"
    assert Session.from_bundle(tmp_path / "b").segment(np.zeros((20, 30, 3), np.uint8), "anything").text


@pytest.mark.usefixtures("without_sam")
def test_a_wrong_file_does_not_pass_and_leaves_nothing(
    policies: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = gguf.GGUFWriter.add_rope_freq_base
    monkeypatch.setattr(gguf.GGUFWriter, "add_rope_freq_base", lambda writer, value: right(writer, 2 * value))

    assert export(policies["qwen2_5_vl"], tmp_path / "b") == 5

    assert "policy.gguf logits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_sam")
def test_what_nobody_compared_says_so(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(policies["qwen2_vl"], tmp_path / "b", "--no-verify") == 0
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")

    manifest = load(tmp_path / "b").manifest
    main(["run", str(tmp_path / "picture.png"), "the ring", "--bundle", str(tmp_path / "b")])

    assert (manifest.verified, manifest.verification) == (False, ())
    assert "never compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quant", "Q5_X"], "choose one of F32, F16, BF16, Q8_0"),
        (["--vision-quant", "Q4_K_M"], "choose one of F32, F16, BF16, Q8_0"),
        (["--quant", "IQ2_XXS", "--no-importance"], "needs an importance matrix"),
        (["--samples", "0"], "--samples is 0"),
        (["--calibration", "nowhere"], "nowhere is not a folder"),
    ],
)
@pytest.mark.usefixtures("without_sam")
def test_options_that_cannot_be_met(
    policies: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    assert export(policies["qwen2_vl"], tmp_path / "b", *options) == 2

    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A GGUF file whose rows 256 divides, so that every type can hold them, and the importance of its columns."""
    root = tmp_path_factory.mktemp("wide")
    rope = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [8, 8, 16]}
    model = make_qwen("qwen2_5_vl", hidden_size=256, intermediate_size=256, rope_parameters=rope)
    file = root / "wide.gguf"
    folder = save_qwen(model, root / "policy", torch.float16)
    PolicyGguf(folder).write_text(file, "F16", quiet)
    rng = np.random.default_rng(0)
    reader = gguf.GGUFReader(file)
    return file, {
        t.name: rng.uniform(0.1, 2, t.shape[0]).astype(np.float32) for t in reader.tensors if len(t.shape) > 1
    }


@pytest.mark.parametrize("kind", QUANTIZATION_TYPES)
def test_every_type_is_made_and_found_in_the_file(wide: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str) -> None:
    file, importance = wide

    quantize_gguf(file, tmp_path / "q.gguf", kind, importance)

    assert (tmp_path / "q.gguf").stat().st_size < file.stat().st_size
    assert kind.removesuffix("_M") in tensor_types(tmp_path / "q.gguf")


def test_importance_moves_the_error_to_columns_that_matter_less(
    wide: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file, flat = wide
    name = "blk.1.ffn_up.weight"
    columns = np.where(np.arange(256) % 32 < 16, 100.0, 0.01).astype(np.float32)

    quantize_gguf(file, tmp_path / "plain.gguf", "Q4_K_M")
    quantize_gguf(file, tmp_path / "weighted.gguf", "Q4_K_M", flat | {name: columns})

    true, plain, weighted = (read(path, name) for path in (file, tmp_path / "plain.gguf", tmp_path / "weighted.gguf"))
    errors = [float(((values - true) ** 2)[:, columns > 1].mean()) for values in (plain, weighted)]
    assert errors[1] < 0.9 * errors[0]


def read(file: Path, name: str) -> Any:
    tensor = next(tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == name)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def test_types_without_importance_are_refused(wide: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs an importance matrix"):
        quantize_gguf(wide[0], tmp_path / "q.gguf", "IQ3_XXS")


@pytest.mark.parametrize(("family", "head"), [("qwen2_5_vl", "output.weight"), ("qwen3_vl", "output.weight")])
def test_importance_is_the_mean_square_of_the_inputs(policies: dict[str, Path], family: str, head: str) -> None:
    folder = policies[family]
    spec = read_policy_spec(folder)
    reference = TorchReference(load_policy(folder), spec, folder / "tokenizer.json")
    answers = [reference.answer(sample) for sample in read_calibration(None, 2)]
    seen: list[torch.Tensor] = []
    hook = reference.model.model.language_model.norm.register_forward_hook(lambda *a: seen.append(a[2][0]))

    measured = measure_importance(reference, answers, read_config(folder), quiet)

    hook.remove()
    expected = torch.cat(seen).double().square().mean(0)
    np.testing.assert_allclose(measured[head], expected.numpy(), rtol=1e-5)
    assert len(measured) == 3 * 7 + 1  # seven matrices a layer, and the head


def test_importance_of_a_recurrent_layer_is_in_the_order_of_its_columns(policies: dict[str, Path]) -> None:
    folder = policies["qwen3_5"]
    reference = TorchReference(load_policy(folder), read_policy_spec(folder), folder / "tokenizer.json")
    answers = [reference.answer(sample) for sample in read_calibration(None, 1)]
    layer = reference.model.model.language_model.layers[1].linear_attn
    seen: list[torch.Tensor] = []
    hook = layer.out_proj.register_forward_hook(lambda *a: seen.append(a[1][0][0]))

    measured = measure_importance(reference, answers, read_config(folder), quiet)

    hook.remove()
    heads = torch.cat(seen).double().square().mean(0).reshape(4, 16)  # the first two belong to the first key head
    np.testing.assert_allclose(measured["blk.1.ssm_out.weight"], heads[[0, 2, 1, 3]].flatten().numpy(), rtol=1e-5)
    assert len(measured) == 3 * 8 + 7 + 1  # eight matrices a recurrent layer, seven in the other one, and the head


def test_every_type_leaves_what_a_recurrent_layer_needs_whole(tmp_path: Path) -> None:
    heads = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}  # rows of 256
    model = make_qwen("qwen3_5", width=256, intermediate_size=256, **heads)
    policy = PolicyGguf(save_qwen(model, tmp_path / "policy", torch.float16))
    policy.write_text(tmp_path / "text.gguf", "F16", quiet)
    policy.write_vision(tmp_path / "vision.gguf", "F16", quiet)
    flat = {t.name: np.ones(t.shape[0], np.float32) for t in gguf.GGUFReader(tmp_path / "text.gguf").tensors}
    for kind in QUANTIZATION_TYPES:
        quantize_gguf(tmp_path / "text.gguf", tmp_path / "q.gguf", kind, flat)
        types = {t.name.split(".", 2)[-1]: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
        whole = ("ssm_a", "ssm_dt.bias", "ssm_conv1d.weight", "ssm_norm.weight", "attn_norm.weight")
        assert {types[name] for name in whole} == {"F32"}, kind
        assert {types[f"{name}.weight"] for name in ("attn_qkv", "attn_gate", "ssm_out")}.isdisjoint({"F32", "F16"})
        quantized = LlamaModel(tmp_path / "q.gguf", tmp_path / "vision.gguf", 64, threads=1)
        assert np.isfinite(quantized.append([1, 2, 3], 0)).all()
        quantized.close()


def test_calibration_reads_pictures_and_their_queries(tmp_path: Path) -> None:
    for name, text in (("b", "the mug\n\nthe  red pen\n"), ("a", "the key")):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)

    samples = read_calibration(tmp_path, 8)

    assert [(s.name, s.query) for s in samples] == [
        ("a.png", "the key"),
        ("b.png", "the mug"),
        ("b.png", "the red pen"),
    ]
    assert samples[0].image.shape == (6, 8, 3)
    assert len(read_calibration(tmp_path, 2)) == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "contains no images"),
        ({"a.png": None}, r"cannot read .*a\.txt.*; write the queries for a\.png into it"),
        ({"a.png": None, "a.txt": " "}, "is empty"),
    ],
)
def test_a_calibration_folder_that_is_none_is_one_line(
    tmp_path: Path, files: dict[str, str | None], words: str
) -> None:
    for name, text in files.items():
        if text is None:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        else:
            (tmp_path / name).write_text(text)

    with pytest.raises(UsageError, match=words):
        read_calibration(tmp_path, 1)


@pytest.fixture(scope="module")
def adapter(policies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the Qwen2.5-VL policy with weights that change its logits."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    peft.get_peft_model(load_policy(policies["qwen2_5_vl"]), config).save_pretrained(folder)
    return folder


def test_a_merged_adapter_gives_the_logits_of_base_plus_adapter(
    policies: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    base = policies["qwen2_5_vl"]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(load_policy(base), adapter)(input_ids=ids).logits
        plain = load_policy(base)(input_ids=ids).logits

    code = main(
        ["export", "--policy", str(base), "--adapter", str(adapter), "--target", "hf", "--out", str(tmp_path / "m")]
    )

    assert code == 0
    with torch.no_grad():
        merged = load_policy(tmp_path / "m")(input_ids=ids).logits
    assert (merged - expected).abs().max() < 0.02 < (plain - expected).abs().max()  # stored in half precision
    assert read_policy_spec(tmp_path / "m") == read_policy_spec(base)


@pytest.mark.usefixtures("without_sam")
def test_a_bundle_with_an_adapter_names_it_and_is_not_run_from_its_base(
    policies: dict[str, Path], adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(policies["qwen2_5_vl"], tmp_path / "b", "--adapter", str(adapter)) == 0
    Image.new("RGB", (32, 32)).save(tmp_path / "p.png")

    code = main(["run", str(tmp_path / "p.png"), "it", "--bundle", str(tmp_path / "b"), "--policy-backend", "torch"])

    assert load(tmp_path / "b").manifest.provenance["policy_adapter"] == str(adapter)
    assert code == 4
    assert "has an adapter merged" in capsys.readouterr().err


def test_merging_nothing_says_so(policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--policy", str(policies["qwen2_vl"]), "--target", "hf", "--out", str(tmp_path / "m")]

    assert main(arguments) == 2
    assert "--adapter" in capsys.readouterr().err


@pytest.mark.slow
def test_the_embedded_policy_in_eight_bits_is_compared_end_to_end(tmp_path: Path) -> None:
    assert export(Path("embedded"), tmp_path / "b", "--quant", "Q8_0") == 0

    figures = {figure.what: figure for figure in load(tmp_path / "b").manifest.verification}
    assert figures["llama: mask IoU with torch, mean"].at_least == 0.95
    assert figures["llama: rationale"].value > 5


@pytest.mark.slow
def test_masks_that_differ_fail_the_gate_and_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wise_edge.evaluation import agreement

    monkeypatch.setattr(agreement.Pair, "mask_iou", 0.5)

    assert export(Path("embedded"), tmp_path / "b") == 5

    assert [path.name for path in tmp_path.iterdir()] == ["b.worst.png"]
    with Image.open(tmp_path / "b.worst.png") as picture:
        assert picture.width > 400
    assert "mask IoU with torch, mean 0.5 (at least 0.99)" in capsys.readouterr().err


def test_the_manifest_is_the_document_that_is_printed(
    policies: dict[str, Path], tmp_path: Path, without_sam: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export(policies["qwen2_vl"], tmp_path / "b", "--json") == 0

    manifest = tmp_path / "b" / "bundle.json"
    assert json.loads(capfd.readouterr().out) == json.loads(manifest.read_text()) | {"sha256": hash_file(manifest)}
    shutil.rmtree(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "wise_edge", "export", "--policy", "embedded", "--sam", "embedded"]

    def listen() -> None:  # in the background of a script Ctrl-C is ignored, and children inherit that
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command += ["--out", str(tmp_path / "b")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "exporting the segmenter" in line)
        assert list(tmp_path.iterdir()), line  # it is being written
        process.send_signal(sent)
        process.stderr.read()

    assert process.returncode == code
    assert not list(tmp_path.iterdir())
