"""The front door: what is a policy's checkpoint, and what people bring instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from tiny_qwen import make_qwen, save_qwen
from wise_edge.errors import UsageError
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.folder import check_policy_folder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3968658944\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen(make_qwen("qwen2_5_vl"), tmp_path_factory.mktemp("door") / "whole", torch.bfloat16)


@pytest.fixture
def policy(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    shutil.copytree(whole, folder)
    return folder


def edit_json(file: Path, **entries: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | entries))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    change(weights)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


def replace_matrix(name: str, **parts: torch.Tensor) -> Callable[[Path], None]:
    """Replace a weight by what a tool stores for it, named after the module with dots written as two underscores."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        stem = next(n for n in weights if n.endswith(f"{name}.weight")).removesuffix(".weight")
        del weights[f"{stem}.weight"]
        weights.update({f"{stem}.{ending.replace('__', '.')}": tensor for ending, tensor in parts.items()})

    return lambda folder: edit_weights(folder, change)


def bytes_of(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.uint8)


def words_of(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int32)


FP8 = torch.float8_e4m3fn
TENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "bitsandbytes-4": (
        replace_matrix("1.mlp.up_proj", weight=bytes_of(64), weight__absmax=bytes_of(4)),
        "bitsandbytes, 4 bits",
    ),
    "bitsandbytes-8": (
        replace_matrix("1.mlp.up_proj", weight=torch.zeros(4, 4, dtype=torch.int8), SCB=torch.ones(4)),
        "bitsandbytes, 8 bits",
    ),
    "gptq": (replace_matrix("1.mlp.up_proj", qweight=words_of(4, 4), g_idx=words_of(4)), "GPTQ"),
    "awq": (replace_matrix("1.mlp.up_proj", qweight=words_of(4, 4), scales=torch.ones(4)), "AWQ or GPTQ"),
    "compressed": (
        replace_matrix("1.mlp.up_proj", weight_packed=words_of(4, 4), weight_scale=torch.ones(4)),
        "compressed-tensors",
    ),
    "modelopt": (
        replace_matrix("1.mlp.up_proj", weight=bytes_of(8), weight_scale_2=torch.ones(1)),
        "modelopt, NVFP4",
    ),
    "fp8": (replace_matrix("1.mlp.up_proj", weight=torch.ones(4, 4).to(FP8), weight_scale=torch.ones(1)), "FP8, see"),
    "fp8-blocks": (
        replace_matrix("1.mlp.up_proj", weight=torch.ones(4, 4).to(FP8), weight_scale_inv=torch.ones(1)),
        "FP8",
    ),
    "torchao": (
        replace_matrix("1.mlp.up_proj", _weight_qdata=torch.zeros(4, 4, dtype=torch.int8), _weight_scale=torch.ones(4)),
        "torchao",
    ),
    "mlx": (replace_matrix("1.mlp.up_proj", scales=torch.ones(4), biases=torch.ones(4)), "MLX"),
    "integers": (replace_matrix("1.mlp.up_proj", weight=torch.ones(4, 4, dtype=torch.int8)), "I8, see"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_quantized_tensors_are_named_without_a_word_in_the_config(policy: Path, case: str) -> None:
    change, method = TENSORS[case]
    change(policy)
    with pytest.raises(UsageError, match=rf"weights are quantized \({method}.*pass the checkpoint"):
        check_policy_folder(policy)


@pytest.mark.parametrize(("bits", "kind"), [(4, "nf4"), (4, "fp4"), (8, "nf4")])
def test_what_bitsandbytes_itself_saves_is_named(policy: Path, tmp_path: Path, bits: int, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=kind == "fp4",
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        policy, quantization_config=settings, dtype=torch.bfloat16, device_map="cpu"
    )
    model.save_pretrained(tmp_path / "quantized")
    for _ in ("with", "without"):  # a word in the config
        with pytest.raises(UsageError, match=rf"\(bitsandbytes, {bits} bits\).*pass the checkpoint that"):
            check_policy_folder(tmp_path / "quantized")
        edit_json(tmp_path / "quantized" / "config.json", quantization_config=None)


CONFIGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bitsandbytes": (
        "config.json",
        {"quantization_config": {"quant_method": "bitsandbytes", "_load_in_4bit": True}},
        "bitsandbytes, 4 bits",
    ),
    "awq": ("config.json", {"quantization_config": {"quant_method": "awq", "bits": 4}}, "AWQ, 4 bits"),
    "nested": ("config.json", {"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "FP8"),
    "mlx": ("config.json", {"quantization": {"group_size": 64, "bits": 4}}, "MLX, 4 bits"),
    "unknown": ("config.json", {"quantization_config": {"quant_method": "new-way"}}, "new-way"),
    "modelopt": ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, "modelopt, FP8"),
    "old-gptq": ("quantize_config.json", {"bits": 4, "group_size": 128}, "GPTQ, 4 bits"),
    "old-awq": ("quant_config.json", {"w_bit": 4, "q_group_size": 128}, "AWQ, 4 bits"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_quantization_is_named_and_may_be_removed(policy: Path, case: str) -> None:
    name, entries, method = CONFIGS[case]
    edit_json(policy / name, **entries)
    with pytest.raises(UsageError, match=rf"\({method}\).*if its weights are no longer quantized, remove "):
        check_policy_folder(policy)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("config.json", {"quantization_config": None}),
        ("config.json", {"quantization_config": {}}),
        ("hf_quant_config.json", {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}),
        ("hf_quant_config.json", {"quantization": ["FP8"]}),
    ],
)
def test_a_config_that_names_no_quantization_of_weights_is_none(policy: Path, name: str, entries: Any) -> None:
    edit_json(policy / name, **entries)
    assert check_policy_folder(policy)["model_type"] == "qwen2_5_vl"


def bare(policy: Path) -> None:
    """Leave config and tokenizer, as trainers do that write weights in a form of their own."""
    (policy / "model.safetensors").unlink()


def touch(*names: str) -> Callable[[Path], None]:
    def change(policy: Path) -> None:
        bare(policy)
        for name in names:
            file = policy / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"{}")

    return change


def nest(below: str, *names: str) -> Callable[[Path], None]:
    """Move the bare policy into a folder of its own place, and write other files there."""

    def change(policy: Path) -> None:
        bare(policy)
        kept = policy.rename(policy.with_name("kept"))
        (policy / below).parent.mkdir(parents=True)
        kept.rename(policy / below)
        for name in names:
            (policy / name).parent.mkdir(parents=True, exist_ok=True)
            (policy / name).write_bytes(b"{}")

    return change


def adapter(policy: Path) -> None:
    bare(policy)
    edit_json(policy / "adapter_config.json", base_model_name_or_path="Qwen/Qwen2.5-VL-3B-Instruct")


def copies(*places: str) -> Callable[[Path], None]:
    """Make a folder of whole policies."""

    def change(policy: Path) -> None:
        kept = policy.rename(policy.with_name("kept"))
        for place in places:
            shutil.copytree(kept, policy / place)

    return change


def own_run(policy: Path) -> None:
    copies("policy", "checkpoint-20")(policy)
    (policy / "checkpoint-20" / "prompts.json").unlink()


def torchao(policy: Path) -> None:
    """Save a pickle of a class that torch does not load, as torchao's tensors are."""
    bare(policy)
    edit_json(policy / "config.json", quantization_config={"quant_method": "torchao"})
    torch.save({"a.weight": Path("x")}, policy / "pytorch_model.bin")


def broken_link(policy: Path) -> None:
    """Leave what a pruned hub cache leaves."""
    bare(policy)
    (policy / "model.safetensors").symlink_to("../blobs/a1")


SHARDS = ("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt", "optim_world_size_2_rank_0.pt")
FOREIGN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "verl": (
        nest("huggingface", *SHARDS, "fsdp_config.json"), "",
        r"verl's shards, .*wise-edge export --policy \S+/policy --target hf --out MERGED",
    ),
    "verl-above": (
        nest("actor/huggingface", *(f"actor/{name}" for name in SHARDS), *(f"critic/{name}" for name in SHARDS)), "",
        r"--policy \S+/policy/actor --target",
    ),
    "verl-run": (
        nest("global_step_20/actor/huggingface", *(f"global_step_{n}/actor/{SHARDS[0]}" for n in (4, 20))), "",
        r"--policy \S+/global_step_20/actor --target",
    ),
    "verl-below": (
        nest("actor/huggingface", *(f"actor/{name}" for name in SHARDS)), "actor/huggingface",
        r"--policy \S+/policy/actor --target",
    ),
    "verl-megatron": (
        nest("huggingface", "dist_ckpt/__0_0.distcp", "dist_ckpt/common.pt"), "", "--backend megatron --local_dir",
    ),
    "deepspeed": (
        touch("zero_to_fp32.py", "latest", "global_step9/zero_pp_rank_0_mp_rank_00_model_states.pt"), "",
        r"DeepSpeed's shards .*python \S+/policy/zero_to_fp32\.py \S+/policy MERGED --safe_serialization",
    ),
    "deepspeed-step": (
        touch("zero_to_fp32.py", "latest", "global_step9/zero_pp_rank_0_mp_rank_00_model_states.pt"), "global_step9",
        r"python \S+/policy/zero_to_fp32\.py \S+/policy MERGED",
    ),
    "fsdp": (
        touch("pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata"), "",
        r"accelerate merge-weights \S+/pytorch_model_fsdp_0 MERGED",
    ),
    "megatron": (touch("iter_0000500/mp_rank_00/model_optim_rng.pt"), "", "checkpoint of Megatron"),
    "adapter": (adapter, "", r"is an adapter; .*trained on \(Qwen/Qwen2\.5-VL-3B-Instruct\).* --adapter \S+/policy"),
    "bundle": (touch("bundle.json", "policy.gguf"), "", "is a bundle, which runs with --bundle"),
    "gguf": (touch("policy-Q4_K_M.gguf"), "", "is a GGUF file"),
    "consolidated": (touch("consolidated.00.pth", "params.json"), "", "form of their author"),
    "shards-without-index": (touch("model-00001-of-00002.safetensors"), "", "add the index of its shards"),
    "accelerate": (touch("optimizer.bin", "scheduler.bin", "random_states_0.pkl"), "", "state of a training"),
    "torch": (touch("policy.pt"), "", r"policy\.pt is of a form that is not supported"),
    "keras": (touch("tf_model.h5"), "", "form that is not supported"),
    "variant": (touch("model.fp16.safetensors"), "", "not a name that transformers reads; rename it"),
    "optimizer": (touch("optimizer.pt", "scheduler.pt", "trainer_state.json"), "", "state of a training"),
    "run": (copies("checkpoint-90", "checkpoint-500", "checkpoint-1000"), "",
     r"pass one of the folders in it, for example \S+/checkpoint-1000$"),
    "hub-cache": (copies("snapshots/a1b2c3"), "", r"for example \S+/policy/snapshots/a1b2c3$"),
    "own-run": (own_run, "", r"for example \S+/policy/policy$"),
    "torchao": (torchao, "", r"weights are quantized \(torchao\)"),
    "broken-link": (broken_link, "", r"model\.safetensors links to \.\./blobs/a1, which does not exist; download it"),
    "empty": (bare, "", r"model\.safetensors is missing, and so is pytorch_model\.bin"),
    "no-config": (lambda policy: (policy / "config.json").unlink(), "", r"holds weights but no config\.json"),
    "both": (lambda policy: edit_json(policy / "adapter_config.json"), "", "a model and an adapter"),
    "text-alone": (lambda policy: edit_json(policy / "config.json", model_type="qwen2"), "", "model_type is 'qwen2'"),
    "no-type": (lambda policy: edit_json(policy / "config.json", model_type={"a": 1}), "", "model_type is .*supported"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_policy_is_named_with_the_remedy(policy: Path, case: str) -> None:
    change, below, words = FOREIGN[case]
    change(policy)
    with pytest.raises(UsageError, match=words) as caught:
        check_policy_folder(policy / below)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_folder_is_named(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf, text = tmp_path / "model.gguf", tmp_path / "notes.txt"
    gguf.write_bytes(b"GGUF\3\0\0\0")
    text.write_text("x")
    monkeypatch.chdir(tmp_path)
    for path, words in (
        (gguf, "is a GGUF file"),
        (text, "is a file; pass the folder"),
        (policy / "model.safetensors", rf"one file of a checkpoint; pass its folder, {policy}$"),
        (tmp_path / "absent", "does not exist"),
        (
            Path("Qwen/Qwen2.5-VL-3B-Instruct"),
            "hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir Qwen2.5-VL-3B-Instruct",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            check_policy_folder(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_recognized(policy: Path, name: str) -> None:
    (policy / name).write_bytes(POINTER)
    with pytest.raises(UsageError, match=rf"{name} is a Git LFS pointer .* run 'git lfs pull'"):
        check_policy_folder(policy)


@pytest.mark.parametrize("wrong", ['{"a": "x"}', '{"a": 1.5}', '{"a": null}', '{"a": [0]}'])
def test_a_vocabulary_whose_numbers_are_none_is_refused(
    wrong: str, tiny_checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoints[0], tmp_path / "policy"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= json.loads(wrong)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="not a tokenizer with a vocabulary; copy it again"):
        read_policy_spec(folder)
