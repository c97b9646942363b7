"""This project's own form of a checkpoint: a folder with `config.json`, the architecture, and `model.safetensors`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wise_edge.extras import require
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.writing import atomic_write
from wise_edge.mapping import from_mapping

if TYPE_CHECKING:
    from torch import Tensor, nn

A = TypeVar("A")


def read_architecture_entry(cls: type[A], folder: Path) -> A:
    """Return the architecture in a folder's config.json.

    Raises:
        UsageError: an entry is missing, unknown or out of range.
    """
    config = folder / "config.json"
    entries = {name: value for name, value in read_json(config).items() if name != "model_type"}
    return from_mapping(cls, entries, f"{config}: ")


def save_folder(model: nn.Module, model_type: str, architecture: Any, folder: Path) -> None:
    """Write a checkpoint folder; existing files are replaced, each atomically.

    Args:
        model: the model; the file holds its weights rounded to half precision, and what batch norms counted as it is.
        model_type: name of the family, by which the folder is known.
        architecture: a dataclass, from which the model was built.
        folder: created if it does not exist.

    Raises:
        UsageError: the folder cannot be written.
    """
    safetensors = require("safetensors.torch", "export")
    folder.mkdir(parents=True, exist_ok=True)
    state = half_state(model)
    atomic_write(folder / "model.safetensors", safetensors.save(state, metadata={"format": "pt"}), force=True)
    text = to_json({"model_type": model_type, **asdict(architecture)}, indent=2) + "\n"
    atomic_write(folder / "config.json", text.encode(), force=True)


def half_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's tensors as its checkpoint holds them: in half precision, but for what batch norms counted."""
    return {
        name: (tensor if is_statistic(name) else tensor.half()).detach().contiguous()
        for name, tensor in model.state_dict().items()
    }


def is_statistic(name: str) -> bool:
    """Return whether a tensor holds what a batch norm counted; a variance may be below half precision's numbers."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
