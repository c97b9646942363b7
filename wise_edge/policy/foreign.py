"""What people pass as a policy that is none, and what to do with it: shards of a trainer, adapters, bundles and others.

A folder is judged here only after it turned out to lack a config or weights. What it is, is known by the names of files
in itself or in a folder one or two levels below, since trainers nest what they write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.weight_files import find_weight_files
from wise_edge.policy.shards import CONFIG_FOLDER, PATTERN

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""A checkpoint's name on the Hugging Face hub."""
_QWEN = re.compile(r"Qwen\d[\d.]*-(VL-)?[\d.]+B[\w.-]*")  # as docs/gpu.md names the folder
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_GGUF = "is a GGUF file, which is converted already; pass the Hugging Face folder that it was made from"
_COPY = "then copy config.json, the tokenizer's and the processor's files into MERGED"
_KINDS = (
    ("bundle.json", "{place} is a bundle, which runs with --bundle; pass the checkpoint that it was exported from"),
    ("adapter_config.json", ""),
    (
        PATTERN,
        "{place} holds verl's shards, one for each GPU; join them: wise-edge export --policy {place} --target hf "
        "--out MERGED",
    ),
    (
        "dist_ckpt",
        "{place} holds verl's shards of Megatron; merge them: python -m verl.model_merger merge --backend megatron "
        "--local_dir {place} --target_dir MERGED",
    ),
    (
        "*_model_states.pt *_optim_states.pt",
        "{place} holds DeepSpeed's shards ({name} and others); join them: python {parent}/zero_to_fp32.py {parent} "
        f"MERGED --safe_serialization; {_COPY}",
    ),
    (
        "mp_rank_* model_optim_rng.pt common.pt",
        "{place} is a checkpoint of Megatron ({name}); write a Hugging Face folder with the tool that trained it, for "
        "example Megatron Bridge's AutoBridge.export_ckpt",
    ),
    (
        "*.distcp",
        "{place} holds shards of FSDP ({name} and others); join them: accelerate merge-weights {place} MERGED; "
        + _COPY,
    ),
    (
        "consolidated*.pth consolidated*.safetensors",
        "{place} holds weights in the form of their author ({name}), which is not supported; pass the same model as a "
        "Hugging Face folder, with model.safetensors or pytorch_model.bin",
    ),
    ("*.gguf", "{place}/{name} " + _GGUF),
    (
        "*.safetensors pytorch_model*.bin model*.bin",
        "{place} holds weights, but {name} is not a name that transformers reads; rename it to model.safetensors or "
        "pytorch_model.bin, or add the index of its shards",
    ),
    (
        "optimizer.* scheduler.* rng_state*.pth random_states_*.pkl trainer_state.json training_args.bin optim_*.pt",
        "{place} holds the state of a training ({name}) without weights; pass a checkpoint that has its model",
    ),
    (
        "*.h5 *.msgpack *.ckpt *.nemo *.onnx *.engine *.pth *.pt *.bin",
        "{place}/{name} is of a form that is not supported; pass a Hugging Face folder with model.safetensors or "
        "pytorch_model.bin",
    ),
)
"""Patterns of names, and the message about a place that has one of them; of several that fit, the first says most."""


def refuse_path(path: Path) -> None:
    """Reject a path that is no folder.

    Raises:
        UsageError: it does not exist or is a file; the message says what to pass instead.
    """
    if path.is_dir():
        return
    if not path.exists():
        raise UsageError(describe_missing_policy(path))
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            raise UsageError(f"{path} {_GGUF}")
    if path.suffix in _WEIGHTS and (path.parent / "config.json").is_file():
        raise UsageError(f"{path} is one file of a checkpoint; pass its folder, {path.parent}")
    raise UsageError(f"{path} is a file; pass the folder of a checkpoint, with config.json, weights and tokenizer.json")


def describe_missing_policy(path: Path) -> str:
    """Say of a path that does not exist what to pass, and of a name on the Hub how to get it."""
    published = f"Qwen/{path}" if _QWEN.fullmatch(str(path)) else str(path)
    if HUB_NAME.fullmatch(published):
        return f"there is no folder {path}; download it: hf download {published} --local-dir {path.name}"
    return f"{path} does not exist; pass a checkpoint's folder or 'embedded' (--policy; in a recipe, model or start)"


def refuse_foreign(folder: Path) -> None:
    """Reject a folder without config.json or without weights.

    Raises:
        UsageError: always; the message names what the folder holds, and what to do with it.
    """
    if find_weight_files(folder):
        raise UsageError(f"{folder} holds weights but no config.json; copy or download the whole checkpoint")
    if broken := [file for file in sorted(folder.iterdir()) if file.is_symlink() and not file.exists()]:
        raise UsageError(f"{broken[0]} links to {broken[0].readlink()}, which does not exist; download it again")
    places = list(_places(folder))
    if whole := [place for place in places if (place / "config.json").is_file() and _has_weights(place)]:
        example = next((place for place in whole if (place / "prompts.json").is_file()), whole[0])
        raise UsageError(f"{folder} is not a checkpoint itself; pass one of the folders in it, for example {example}")
    if folder.name == CONFIG_FOLDER:  # verl writes config and tokenizer here, and the shards next to it
        places.append(folder.parent)
    for patterns, words in _KINDS:
        for place in places:
            if found := next((file for pattern in patterns.split() for file in sorted(place.glob(pattern))), None):
                raise UsageError(_advise(words, place, found))
    raise UsageError(
        f"{folder / 'model.safetensors'} is missing, and so is pytorch_model.bin; copy the whole checkpoint"
    )


def _places(folder: Path) -> Iterator[Path]:
    """Yield a folder, the folders in it, and those in them; of a training's steps the newest first."""
    inner = [child for child in sorted(folder.iterdir(), key=_newest_first) if child.is_dir()]
    yield folder
    yield from inner
    for child in inner:
        yield from (below for below in sorted(child.iterdir()) if below.is_dir())


def _newest_first(folder: Path) -> tuple[int, str]:
    number = re.search(r"\d+$", folder.name)
    return -int(number.group()) if number else 1, folder.name  # verl's actor comes before its critic


def _has_weights(folder: Path) -> bool:
    try:
        return bool(find_weight_files(folder))
    except UsageError:
        return False


def _advise(words: str, place: Path, file: Path) -> str:
    if file.name == "adapter_config.json":
        base = read_json(file).get("base_model_name_or_path")
        trained = f"the base that it was trained on{f' ({base})' if base else ''}"
        return f"{place} is an adapter; pass {trained} as the policy, and the adapter with --adapter {place}"
    return words.format(place=place, parent=place.parent, name=file.name)
