"""The tensors of a segmenter's checkpoint, as published or as trainings wrap them.

A training's file holds the model beside optimizer and counters, at any depth ("model", "state_dict" ...), and
DistributedDataParallel, torch.compile and modules around the model put a prefix before every name ("module.",
"_orig_mod.", "sam."). Both are known by the names of the segmenter's own parts, not by a list of wrappers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.torch_pickles import load_pickle
from wise_edge.native.weight_files import list_file_tensors, list_tensors
from wise_edge.sam.families import describe_supported
from wise_edge.sam.names import find_part

if TYPE_CHECKING:
    from torch import Tensor

_DEEPEST = 5


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a segmenter, memory-mapped, by the names of the segmenter itself.

    Args:
        checkpoint: a file (`.pth`, `.pt`, `.bin`, `.safetensors`), or a Hugging Face folder.

    Raises:
        UsageError: it cannot be read safely, holds no weights, or holds several models; the message names them.
        MissingExtraError: torch or safetensors is not installed.
    """
    if checkpoint.is_dir():
        return {tensor.name: tensor.read() for tensor in list_tensors(checkpoint)}
    refuse_lfs_pointer(checkpoint)
    if checkpoint.suffix == ".safetensors":
        found: Any = {tensor.name: tensor.read() for tensor in list_file_tensors(checkpoint)}
    else:
        found = load_pickle(checkpoint)
    models = dict(_find_models(found, ""))
    if len(models) > 1:
        named = ", ".join(f"'{place}'" for place in models)
        raise UsageError(
            f"{checkpoint} holds {len(models)} models: {named}; save the one to use alone, with torch.save"
        )
    if not models:
        raise UsageError(f"{checkpoint} holds no segmenter's weights{_describe(found)}; {describe_supported()}")
    return _strip_prefix(next(iter(models.values())))


def _find_models(found: Any, place: str, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield each dictionary that holds a segmenter's tensors, with the keys that lead to it."""
    if not isinstance(found, dict) or depth > _DEEPEST:
        return
    torch = require("torch", "export")
    tensors = {
        name: value for name, value in found.items() if isinstance(value, torch.Tensor) and isinstance(name, str)
    }
    if any(find_part(name) is not None for name in tensors):
        yield place, tensors
        return
    for name, value in found.items():
        yield from _find_models(value, f"{place}.{name}" if place else str(name), depth + 1)


def _strip_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that most names with a segmenter's part have."""
    prefixes = Counter(name[:place] for name in weights if (place := find_part(name)) is not None)
    prefix = prefixes.most_common(1)[0][0]
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _describe(found: Any) -> str:
    if not isinstance(found, dict):
        return f" but a {type(found).__name__}"
    return f" (see {', '.join(repr(str(name)) for name in list(found)[:3])})" if found else ""
