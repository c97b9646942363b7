"""Loaders of models: policies, segmenters, adapters, bundles with their graphs, GGUF files and tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401 - warm, before the fork
import peft
import safetensors.torch
import torch
from workers import Loader

from tiny_models import SAM, make_policy, make_sam, make_sam2, make_tokenizer, save_policy
from tiny_qwen import make_qwen, save_qwen
from wise_edge.bundle import store
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.native.llama import LlamaModel
from wise_edge.native.weight_files import list_tensors, load_pickle
from wise_edge.policy.adapter_names import fit_adapter, read_adapter_config
from wise_edge.policy.architecture import load_config
from wise_edge.policy.checkpoint import load_policy, read_policy_spec, stored_dtype
from wise_edge.policy.folder import check_policy_folder
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.session import Session
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.segment_anything import save_sam
from wise_edge.training.common.checkpoints import load_checkpoint, save_checkpoint
from wise_edge.training.wise.checkpoints import newest_checkpoint, seal

torch.set_num_threads(1)
_IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


def _save_shards(folder: Path) -> None:
    """Write a policy as two shards and their index."""
    save_policy(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(weights)
    places = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        part = {name: weights[name] for name in names if places[name] == shard}
        safetensors.torch.save_file(part, folder / shard)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _save_pickled(folder: Path) -> None:
    save_policy(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _read_policy(folder: Path) -> None:
    read_policy_spec(folder)
    stored_dtype(folder)


def _read_tensors(folder: Path) -> None:
    check_policy_folder(folder)
    for tensor in list_tensors(folder):
        tensor.read()


def _save_adapter(folder: Path) -> None:
    (folder / "base").mkdir()
    save_policy(folder / "base")
    torch.manual_seed(0)
    options = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(make_policy(make_tokenizer()), options).save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)


def _read_adapter(folder: Path) -> None:
    read_adapter_config(folder / "adapter")
    fitted = fit_adapter(folder / "adapter", load_config(folder / "base"), base="the base")
    for tensor in fitted.tensors.values():
        tensor.read()


def _read_sam(folder: Path) -> None:
    read_sam_spec(folder)
    load_segmenter(folder)


def _read_sam_file(folder: Path) -> None:
    read_sam_spec(folder / "sam.pth")
    load_segmenter(folder / "sam.pth")


def _save_sam2(folder: Path) -> None:
    make_sam2().save_pretrained(folder)


def _read_sam2(folder: Path) -> None:
    read_sam_spec(folder)
    load_segmenter(folder)


def _save_pickle(folder: Path) -> None:
    state = {"model": {"a": torch.zeros(4, 3), "b": torch.zeros(2, dtype=torch.int64)}, "args": {"lr": 1e-3}, "n": [1]}
    torch.save(state, folder / "state.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


def _read_pickle(folder: Path) -> None:
    load_pickle(folder / "state.pt")
    load_pickle(folder / "old.pth")


def _save_checkpoints(folder: Path) -> None:
    for step in (10, 20):
        save_checkpoint(folder, step, {"model": {"a": torch.zeros(8, 8)}, "optimizer": {"lr": 1e-3}, "seconds": 1.0})


def _save_wise_run(folder: Path) -> None:
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.bin").write_bytes(b"x" * 30)
    seal(folder / "checkpoint-10")


def _read_wise_run(folder: Path) -> None:
    newest_checkpoint(folder)


def _copy_bundle(folder: Path) -> None:
    source = store.load(store.resolve_bundle(None))
    for file in source.files:
        (folder / file.name).write_bytes(file.read_bytes())


def _amend(folder: Path) -> None:
    """Make the manifest agree with its files, as whoever damages a bundle on purpose does."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for artifact in manifest["artifacts"]:
        file = folder / artifact["path"]
        artifact |= {"bytes": file.stat().st_size, "sha256": store.hash_file(file)}
    (folder / "bundle.json").write_text(json.dumps(manifest))


def _run_amended(folder: Path) -> None:
    _amend(folder)
    _run_bundle(folder)


def _run_bundle(folder: Path) -> None:
    Session.from_bundle(folder, policy_backend="onnx", mask_backend="onnx").segment(_IMAGE, "the red ring", "answer")


def _read_tokenizer(folder: Path) -> None:
    spec = store.load(store.resolve_bundle(None)).manifest.policy
    text = PolicyText(folder / "policy.tokenizer.json", spec)
    text.prompt("the red ring", "wise-s", spec.image_grid(spec.picture_size((640, 480))))
    text.beginnings("</answer>")


def _copy_tokenizer(folder: Path) -> None:
    source = store.resolve_bundle(None) / "policy.tokenizer.json"
    (folder / source.name).write_bytes(source.read_bytes())


def _save_gguf(folder: Path) -> None:
    policy = folder / "policy"
    policy.mkdir()
    save_qwen(make_qwen("qwen2_5_vl"), policy, torch.float16)
    converter = PolicyGguf(policy)
    converter.write_text(folder / "text.gguf", "F16", lambda *_: None)
    converter.write_vision(folder / "vision.gguf", "F16", lambda *_: None)
    shutil.rmtree(policy)


def _read_gguf(folder: Path) -> None:
    model = LlamaModel(folder / "text.gguf", folder / "vision.gguf", 320, threads=1)
    model.append([1, 2, 3], 0)


LOADERS = (
    Loader("policy folder", save_policy, _read_policy, "*.json", share=0.6),
    Loader("policy in shards", _save_shards, _read_policy, "*.safetensors*", share=0.6),
    Loader("policy as pickle", _save_pickled, _read_policy, "*.bin", share=0.5),
    Loader("policy tensors", save_policy, _read_tensors, "*.safetensors", share=0.6),
    Loader("policy, loaded", save_policy, lambda f: load_policy(f), "*[nrs]", share=0.05),
    Loader("adapter", _save_adapter, _read_adapter, "adapter/*", share=0.1),
    Loader("segmenter folder", lambda f: save_sam(make_sam(), SAM, f), _read_sam, "*", share=0.3),
    Loader(
        "segmenter file", lambda f: torch.save(make_sam().state_dict(), f / "sam.pth"), _read_sam_file, "*", share=0.3
    ),
    Loader("SAM 2 folder", _save_sam2, _read_sam2, "*", share=0.05),
    Loader("pickle of torch", _save_pickle, _read_pickle, "*", share=4.0),
    Loader("checkpoint", _save_checkpoints, load_checkpoint, "*", share=1.0),
    Loader("checkpoint of WISE", _save_wise_run, _read_wise_run, "*/*", share=2.0),
    Loader("bundle, run", _copy_bundle, _run_bundle, "bundle.json", share=0.05),
    Loader("bundle with its manifest, run", _copy_bundle, _run_amended, "policy*", share=0.03),
    Loader("segmenter's graphs, run", _copy_bundle, _run_amended, "sam*", share=0.02),
    Loader("embedding, run", _copy_bundle, _run_amended, "*.npy", share=0.03),
    Loader("tokenizer", _copy_tokenizer, _read_tokenizer, "*", share=0.2),
    Loader("GGUF", _save_gguf, _read_gguf, "*.gguf", share=0.2),
)
