"""The tensors of a segmenter's checkpoint, as published or as trainings wrap them.

A training's file holds the model beside optimizer and counters, at any depth ("model", "state_dict" ...), and
DistributedDataParallel, torch.compile and modules around the model put a prefix before every name ("module.",
"_orig_mod.", "sam."). Both are known by the names of the segmenter's own parts, not by a list of wrappers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.torch_pickles import load_pickle
from wise_edge.native.weight_files import check_finite, list_file_tensors, list_tensors
from wise_edge.sam.families import describe_supported
from wise_edge.sam.names import find_part

if TYPE_CHECKING:
    from torch import Tensor, nn

_DEEPEST = 5
_CONVERTED = (".onnx", ".ort", ".engine", ".plan", ".trt", ".tflite", ".mlmodel", ".mlpackage")
"""What exports of segmenters end with; they say too little of a model to convert it once more."""
_PICKLED_MODULES = {
    "segment_anything_kd.": "it is SlimSAM with global pruning, whose layers differ in width; pass its uniform form: "
    "hf download Zigeng/SlimSAM-uniform-77 --local-dir SlimSAM-uniform-77"
}
"""What to pass instead of modules that were saved whole: https://github.com/czg1225/SlimSAM#model-checkpoints."""


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
    if checkpoint.suffix in _CONVERTED:
        raise UsageError(
            f"{checkpoint} is what other tools run, a graph or an engine; pass the checkpoint that it was made from, "
            "for example mobile_sam.pt"
        )
    if checkpoint.suffix == ".safetensors":
        found: Any = {tensor.name: tensor.read() for tensor in list_file_tensors(checkpoint)}
    else:
        found = load_pickle(checkpoint, remedies=_PICKLED_MODULES)
    models = dict(_find_models(found, ""))
    if len(models) > 1:
        named = ", ".join(f"'{place}'" for place in models)
        raise UsageError(
            f"{checkpoint} holds {len(models)} models: {named}; save the one to use alone, with torch.save"
        )
    if not models:
        raise UsageError(f"{checkpoint} holds no segmenter's weights{_describe(found)}; {describe_supported()}")
    return _strip_prefix(next(iter(models.values())))


def fill_model(model: nn.Module, weights: Mapping[str, Tensor], checkpoint: Path, title: str) -> None:
    """Load all weights of a model as float32, and put it into evaluation mode.

    Args:
        model: with random weights.
        weights: a tensor for each of its state, by name.
        checkpoint: for messages.
        title: what the model is called.

    Raises:
        UsageError: one is missing, unknown, of another shape or not finite; the message names the first of each.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differing = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    faults = {
        "lacks": expected.keys() - found.keys(),
        "has besides": found.keys() - expected.keys(),
        "has in another shape": [f"{name} {[*found[name]]} instead of {[*expected[name]]}" for name in differing],
    }
    if said := [f"{verb} {list_first(sorted(names))}" for verb, names in faults.items() if names]:
        raise UsageError(
            f"{checkpoint} does not hold the weights of a complete {title}: it {'; it '.join(said)}; pass the file "
            "that its authors publish, or what a training of that model saved"
        )
    check_finite(checkpoint, weights)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    model.eval()


def list_first(names: list[str]) -> str:
    """Return the first three names for a message, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


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
