"""GGUF files equal those of llama.cpp's own converter, and what llama.cpp would run wrong is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import safetensors.torch
import torch

from gguf_golden import GOLDEN, PARTS, TYPES, digest
from tiny_qwen import FAMILIES, make_qwen, save_qwen
from wise_edge.errors import UsageError
from wise_edge.export.to_gguf.convert import PolicyGguf, read_config
from wise_edge.export.to_gguf.limits import check_limits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint a family, float32."""
    root = tmp_path_factory.mktemp("qwen")
    return {family: save_qwen(make_qwen(family), root / family) for family in FAMILIES}


def write(folder: Path, part: str, kind: str, out: Path) -> Path:
    policy = PolicyGguf(folder)
    (policy.write_text if part == "text" else policy.write_vision)(out, kind, lambda *_: None)
    return out


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_files_are_those_of_the_official_converter(
    folders: dict[str, Path], tmp_path: Path, family: str, kind: str, part: str
) -> None:
    ours = digest(write(folders[family], part, kind, tmp_path / "ours.gguf"))

    official = golden(f"{family} {kind} {part}")
    assert ours["tensors"] == official["tensors"]
    assert ours["metadata"] == official["metadata"]


def golden(name: str) -> Any:
    """Return the digest of a file of the official converter; its files of Qwen3.5 are made with --no-mtp."""
    return json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("family", FAMILIES)
def test_older_layouts_and_shards_give_the_same_file(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Flat configs and weights without `language_model.`, in several files, as transformers 4.49 wrote them."""
    old = tmp_path / "old"
    shutil.copytree(folders[family], old)
    config = json.loads((old / "config.json").read_text())
    if family.startswith("qwen2"):  # the others were nested from the beginning
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        config |= text | {
            "model_type": family,
            "rope_theta": rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        }
        (old / "config.json").write_text(json.dumps(config))
    split_weights(old, lambda name: name.replace("model.visual.", "visual.").replace("model.language_model.", "model."))

    for part in PARTS:
        expected = digest(write(folders[family], part, "F16", tmp_path / "new.gguf"))
        found = digest(write(old, part, "F16", tmp_path / "old.gguf"))
        assert sorted(found["tensors"]) == sorted(expected["tensors"])


def split_weights(folder: Path, rename: Callable[[str], str]) -> None:
    """Replace the single file by two shards with an index."""
    file = folder / "model.safetensors"
    weights = {rename(name): tensor for name, tensor in safetensors.torch.load_file(file).items()}
    file.unlink()
    names = list(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        safetensors.torch.save_file({name: weights[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_folder_as_qwen3_5_is_published_gives_the_same_files(folders: dict[str, Path], tmp_path: Path) -> None:
    """With layers that predict further tokens, which are left out, and entries that transformers does not write."""
    folder = tmp_path / "p"
    shutil.copytree(folders["qwen3_5"], folder)
    of_layers = {"full_attention_interval": 4, "attn_output_gate": True, "mamba_ssm_dtype": "float32"}
    edit_config(folder, "text_config", mtp_num_hidden_layers=1, mtp_use_dedicated_embeddings=False, **of_layers)
    edit_config(folder, "vision_config", deepstack_visual_indexes=[], model_type="qwen3_5")
    names = ("mtp.fc.weight", "mtp.layers.0.self_attn.q_proj.weight", "mtp.norm.weight")
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(4, 4) for name in names}))

    for part in PARTS:
        assert digest(write(folder, part, "F16", tmp_path / f"{part}.gguf")) == golden(f"qwen3_5 F16 {part}")


def test_a_tied_head_is_left_out(tmp_path: Path) -> None:
    folder = save_qwen(make_qwen("qwen2_5_vl", tied=True), tmp_path / "tied")

    names = [tensor[0] for tensor in digest(write(folder, "text", "F16", tmp_path / "t.gguf"))["tensors"]]

    assert "token_embd.weight" in names
    assert "output.weight" not in names


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float16, "F16"), (torch.bfloat16, "BF16"), (torch.float32, "F32")])
def test_the_lossless_type_is_the_stored_one(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    folder = save_qwen(make_qwen("qwen2_vl"), tmp_path / "policy", dtype)

    assert PolicyGguf(folder).lossless_type == kind


def lose_a_shard(folder: Path) -> None:
    split_weights(folder, str)
    (folder / "model-00002-of-00002.safetensors").unlink()


def edit_config(folder: Path, part: str, **entries: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    (config[part] if part else config).update(entries)
    file.write_text(json.dumps(config))


def rope(family: str, **entries: Any) -> dict[str, Any]:
    return {"rope_parameters": dict(make_qwen(family).config.text_config.rope_parameters) | entries}


LIMITS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "window": ("qwen2_5_vl", "vision_config", {"window_size": 56}, r"window_size is 56; .* assumes 112"),
    "attention": ("qwen2_5_vl", "vision_config", {"fullatt_block_indexes": [0, 3]}, r"\[0, 3\]; .* \[0, 1, 2, 3\]"),
    "attention-short": ("qwen2_5_vl", "vision_config", {"fullatt_block_indexes": [1]}, r"\[1\]; .* \[1, 3\]"),
    "sections": ("qwen2_vl", "text_config", rope("qwen2_vl", mrope_section=[2, 2, 2]), "sum of mrope_section is 6"),
    "uneven": ("qwen3_vl", "text_config", rope("qwen3_vl", mrope_section=[6, 3, 3]), r"\[6, 3, 3\]; .* \[4, 4, 4\]"),
    "yarn": ("qwen2_vl", "text_config", rope("qwen2_vl", rope_type="linear", factor=2.0), "rope_type is linear"),
    "window-text": ("qwen2_vl", "text_config", {"use_sliding_window": True}, "use_sliding_window is True"),
    "activation": ("qwen3_vl", "vision_config", {"hidden_act": "relu"}, "hidden_act is relu"),
    "deepstack": ("qwen3_vl", "vision_config", {"deepstack_visual_indexes": [0, 1, 2]}, "number of layers is 3"),
    "heads": ("qwen3_5", "text_config", {"linear_num_value_heads": 3}, r"linear_num_value_heads is 3; .* assumes 2"),
    "widths": ("qwen3_5", "text_config", {"linear_value_head_dim": 8}, "linear_value_head_dim is 8; .* assumes 16"),
    "states": ("qwen3_5", "text_config", {"layer_types": ["linear_attention"] * 4}, "a full_attention among"),
    "rotary": (
        "qwen3_5",
        "text_config",
        rope("qwen3_5", partial_rotary_factor=0.5),
        "sum of mrope_section is 8; .* 16",
    ),
    "merge": ("qwen2_vl", "vision_config", {"spatial_merge_size": 4}, "spatial_merge_size is 4"),
}
FOLDERS = {
    "quantized": ("", {"quantization_config": {"quant_method": "gptq"}}, "weights are quantized"),
    "family": ("", {"model_type": "llava"}, "supported are qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5"),
    "eps": ("text_config", {"rms_norm_eps": 1e-3}, "rms_norm_eps is 0.001, which llama.cpp leaves out"),
    "widths": ("text_config", {"intermediate_size": 32}, "9 weights of another shape"),
}


@pytest.mark.parametrize("case", LIMITS)
def test_what_llama_cpp_would_run_wrong_is_refused(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    family, part, entries, words = LIMITS[case]
    folder = tmp_path / "policy"
    shutil.copytree(folders[family], folder)
    edit_config(folder, part, **entries)

    with pytest.raises(UsageError, match=words):
        check_limits(folder, read_config(folder))


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_no_checkpoint_for_it_is_refused(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    part, entries, words = FOLDERS[case]
    folder = tmp_path / "policy"
    shutil.copytree(folders["qwen2_5_vl"], folder)
    edit_config(folder, part, **entries)

    with pytest.raises(UsageError, match=words):
        PolicyGguf(folder)


SIZES = {
    "large, as the embedded policy's": (0.5, 1e-5, True),
    "as published models start": (0.02, 1e-6, True),
    "smaller, with the published epsilon": (0.006, 1e-6, True),
    "small, with ten times the published epsilon": (0.02, 1e-5, False),
    "small, with five times": (0.02, 5e-6, False),
    "tiny": (0.003, 1e-6, False),
}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_norms_without_epsilon_are_refused_where_embeddings_are_small(tmp_path: Path, family: str, case: str) -> None:
    size, eps, fits = SIZES[case]
    model = make_qwen(family, rms_norm_eps=eps)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(size / 0.5)  # it is drawn with 0.5
    folder = save_qwen(model, tmp_path / "p")

    if fits or family == "qwen3_vl":  # llama.cpp reads the epsilon of that one
        PolicyGguf(folder)
    else:
        with pytest.raises(UsageError, match=r"rms_norm_eps is .* embeddings as small .* --target onnx"):
            PolicyGguf(folder)


@pytest.mark.parametrize("differs", [False, True])
def test_a_tied_head_that_is_stored_is_written_where_it_differs(tmp_path: Path, differs: bool) -> None:
    folder = save_qwen(make_qwen("qwen2_5_vl", tied=True), tmp_path / "p")
    embedding = "model.embed_tokens.weight"
    edit_weights(folder, lambda w: w.update({"lm_head.weight": w[embedding] * (1 + differs)}))

    write(folder, "text", "F32", tmp_path / "text.gguf")

    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "text.gguf").tensors}
    assert ("output.weight" in names) is differs


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    change(weights)
    safetensors.torch.save_file(weights, file)


def renumber_last_token(folder: Path, number: int) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zz"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def set_value(weights: dict[str, torch.Tensor], ending: str, value: float) -> None:
    weights[next(name for name in weights if name.endswith(ending))].view(-1)[3] = value


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "nan": (lambda f: edit_weights(f, lambda w: set_value(w, "1.mlp.up_proj.weight", float("nan"))), "not finite"),
    "beyond": (lambda f: edit_weights(f, lambda w: set_value(w, "1.mlp.up_proj.weight", 1e6)), "beyond F16"),
    "strange": (
        lambda f: edit_weights(f, lambda w: w.update({"model.extra.weight": torch.ones(2)})),
        "without a place",
    ),
    "no-head": (lambda f: edit_weights(f, lambda w: w.__delitem__("lm_head.weight")), r"lacks 1 weight \(lm_head"),
    "integers": (
        lambda f: edit_weights(f, lambda w: w.update({"lm_head.weight": torch.ones(4, 4, dtype=torch.int8)})),
        "I8, see lm_head",
    ),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 8), "is not a safetensors file, or it is damaged"),
    "no-weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "shard": (lose_a_shard, r"model-00002-of-00002\.safetensors is missing"),
    "vocabulary": (lambda f: edit_config(f, "text_config", vocab_size=200), "describes no model"),
    "tokenizer": (
        lambda f: renumber_last_token(f, 400),
        "the token 400, the model ends at 276; they do not belong together",
    ),
    "no-config": (lambda f: (f / "config.json").unlink(), r"weights but no config\.json"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    damage, words = DAMAGE[case]
    folder = tmp_path / "policy"
    shutil.copytree(folders["qwen2_5_vl"], folder)
    damage(folder)

    with pytest.raises(UsageError, match=words) as caught:
        write(folder, "text", "F16", tmp_path / "text.gguf")
    assert "\n" not in str(caught.value)
