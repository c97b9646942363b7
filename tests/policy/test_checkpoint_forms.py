"""One policy in the forms in which it is published: every one loads to the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tiny_qwen import make_qwen, save_qwen
from wise_edge.export.source.tensors import CheckpointTensors
from wise_edge.policy.adapter import probe
from wise_edge.policy.architecture import normalize_name
from wise_edge.policy.checkpoint import load_policy


def newer(name: str) -> str:
    """Return a name as transformers 4.52 and later give it; `normalize_name` gives the older ones."""
    name = normalize_name(name)
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def save(weights: dict[str, torch.Tensor], folder: Path, suffix: str) -> None:
    """Save weights in two files with an index."""
    stem, write = ("pytorch_model", torch.save) if suffix == "bin" else ("model", safetensors.torch.save_file)
    names = list(weights)
    files = {f"{stem}-0000{part + 1}-of-00002.{suffix}": names[part::2] for part in range(2)}
    for file, part in files.items():
        write({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("tied", [False, True])
def test_prefixes_and_files_change_no_number(family: str, tied: bool, tmp_path: Path) -> None:
    folder = save_qwen(make_qwen(family, tied=tied), tmp_path / "policy", torch.float16)
    expected, known = probe(load_policy(folder)), set(CheckpointTensors(folder))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in weights) is not tied
    (folder / "model.safetensors").unlink()

    for rename in (newer,) if family == "qwen3_vl" else (normalize_name, newer):  # younger than the older names
        for suffix in ("safetensors", "bin"):
            save({rename(name): value for name, value in weights.items()}, folder, suffix)
            assert torch.equal(probe(load_policy(folder)), expected)
            assert set(CheckpointTensors(folder)) == known
            for file in folder.glob(f"*.{suffix}*"):
                file.unlink()
