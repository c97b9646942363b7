"""Where a bundle comes from: its checkpoints with their hashes, and the versions of the tools that made it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.files.hashing import hash_file
from wise_edge.native.weight_files import find_weight_files
from wise_edge.policy.shards import find_shards, list_shards

_TOOLS = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "gguf",
    "llama-cpp-python",
    "peft",
    "tensorrt",
    "tensorrt_rtx",
)


def checkpoint_weights(checkpoint: Path) -> list[Path]:
    """Return the weight files of a checkpoint, which may be a single file itself."""
    if checkpoint.is_file():
        return [checkpoint]
    return list_shards(shards) if (shards := find_shards(checkpoint)) else find_weight_files(checkpoint)


def describe_checkpoint(name: str, checkpoint: Path, part: str, adapter: Path | None = None) -> dict[str, str]:
    """Return a checkpoint's entries for the manifest's provenance.

    Args:
        name: as the user named it.
        checkpoint: what was exported, an adapter merged.
        part: "policy" or "sam".
        adapter: the adapter that was merged.
    """
    merged = {} if adapter is None else {f"{part}_adapter": str(adapter.resolve())}
    recipe = checkpoint / "recipe.yaml"  # the resolved recipe that a training saves with the weights
    files = [*checkpoint_weights(checkpoint), *([recipe] if recipe.is_file() else [])]
    return merged | {
        part: name if resolve_checkpoint(name, part) != Path(name) else str(Path(name).resolve()),
        **{f"{part}_{file.name}_sha256": hash_file(file) for file in files},
    }


def describe_tools() -> dict[str, str]:
    """Return the installed versions of the packages that an export may use."""
    found = {}
    for package in _TOOLS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
