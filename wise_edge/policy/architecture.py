"""The one account of a policy's tensors: which names and shapes an architecture has, and what a checkpoint differs in.

transformers builds the architecture without memory (torch's "meta" device), and names and shapes are compared, both
ways, with the headers of a checkpoint's files. So a checkpoint is judged in a second, whatever its size. Adapters are
judged by the same comparison, see `wise_edge.policy.adapter_names`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.native.weight_files import StoredTensor
from wise_edge.policy.families import FAMILIES

_NAMES = ("Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "Qwen3_5")
CLASSES = {family: f"{name}ForConditionalGeneration" for family, name in zip(FAMILIES, _NAMES, strict=True)}
"""transformers' class of each family."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The two matrices that a tied policy stores as one."""

Shapes = Mapping[str, tuple[int, ...]]
"""Names in the one layout of `normalize_name`, each with its shape."""

_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
)
_DERIVED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "position_ids")
"""Ends of the names of buffers that older versions of transformers saved, and that every version computes itself."""
_DRAFTING = ("mtp.", "model.mtp.")
"""Beginnings of the names of Qwen3.5's layers for predicting several tokens at once, which transformers leaves out."""
_MOST_LAYERS = 1000
_LISTED = 3  # names in a message
_ZERO3 = (
    "DeepSpeed ZeRO-3 saved them without gathering: convert its checkpoint with zero_to_fp32.py, or save again with "
    "stage3_gather_16bit_weights_on_model_save"
)


def normalize_name(name: str) -> str:
    """Return a tensor's or module's name in the one layout: `model.…`, `lm_head.…` and `visual.…`.

    Older and newer versions of transformers save the same weights under different prefixes.
    """
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def load_config(folder: Path) -> Any:
    """Return transformers' config of a folder, with the defaults filled in, for old and new layouts of the file.

    Raises:
        UsageError: the config is missing or malformed, or transformers does not know it.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "export")
    _check_layers(folder / "config.json")
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # huggingface_hub checks entries with classes of errors of its own
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder / 'config.json'} cannot be read: {reason}") from error


def _check_layers(file: Path) -> None:
    """Raise `UsageError` for more layers than any model has; transformers makes entries and modules for each."""
    config = read_json(file)
    for part in (config, config.get("text_config"), config.get("vision_config")):
        for name in ("num_hidden_layers", "depth"):
            if isinstance(part, dict) and isinstance(count := part.get(name), int) and count > _MOST_LAYERS:
                raise UsageError(f"{file}: {name} is {count}, at most {_MOST_LAYERS}; copy the complete checkpoint")


def build_skeleton(config: Any, *, source: str | Path) -> Any:
    """Build transformers' model of a config on the "meta" device: names and shapes without numbers.

    Args:
        config: transformers' config of a policy.
        source: where it comes from, for messages.

    Raises:
        UsageError: the config is not one of a supported family, or contradicts itself.
        MissingExtraError: torch or transformers is not installed.
    """
    torch, transformers = require("torch", "export"), require("transformers", "export")
    if config.model_type not in CLASSES:
        raise UsageError(f"{source}: model_type is {config.model_type!r}; supported are {', '.join(CLASSES)}")
    try:
        with torch.device("meta"):
            return getattr(transformers, CLASSES[config.model_type])(copy.deepcopy(config))
    except Exception as error:  # for entries that contradict one another, its modules raise almost any class
        raise UsageError(f"{source}: its config describes no model: {first_line(error)}") from error


def check_weights(folder: Path, tensors: Iterable[StoredTensor], *, source: Path | None = None) -> None:
    """Reject a checkpoint whose tensors are not those of the architecture that its config describes.

    Args:
        folder: Hugging Face folder of a policy.
        tensors: what its weight files hold.
        source: where they lie, for messages, if elsewhere.

    Raises:
        UsageError: tensors are empty, missing, of another shape or without a place; the message names the first three
            of each kind and says what to do.
        MissingExtraError: torch or transformers is not installed.
    """
    skeleton = build_skeleton(load_config(folder), source=folder)
    expected = {normalize_name(name): tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    tied = {normalize_name(name) for name in skeleton.all_tied_weights_keys}
    difference = Difference.between(expected, normalize_tensors(tensors), may_lack=tied)
    if difference:
        raise UsageError(f"{source or folder} {difference}; {_remedy(difference, expected)}")


def normalize_tensors(
    tensors: Iterable[StoredTensor], rename: Callable[[str], str] = normalize_name
) -> dict[str, StoredTensor]:
    """Return stored tensors under their names in the one layout, without those that no runtime reads.

    Raises:
        UsageError: two tensors have the same name in it.
    """
    found: dict[str, StoredTensor] = {}
    for tensor in tensors:
        name = rename(tensor.name)
        if name in found:
            other = found[name]
            raise UsageError(f"{tensor.file} holds {tensor.name}, and {other.file.name} holds {other.name}; keep one")
        if not name.endswith(_DERIVED) and not name.startswith(_DRAFTING):
            found[name] = tensor
    return found


@dataclass(frozen=True)
class Difference:
    """What stored tensors differ in from those of an architecture; false if in nothing.

    Attributes:
        empty: names of tensors without numbers.
        missing: names that are not stored.
        unknown: stored names that have no place.
        reshaped: names of tensors of another shape, each with both shapes.
    """

    empty: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @staticmethod
    def between(expected: Shapes, stored: Mapping[str, StoredTensor], may_lack: Collection[str] = ()) -> Difference:
        """Compare both ways.

        Args:
            expected: the architecture's.
            stored: what the files hold.
            may_lack: names that need not be stored, for example a tied head.
        """
        found = {name: tensor.shape for name, tensor in stored.items()}
        empty = [name for name, shape in found.items() if 0 in shape and 0 not in expected.get(name, ())]
        return Difference(
            empty=tuple(empty),
            missing=tuple(name for name in expected if name not in found and name not in may_lack),
            unknown=tuple(name for name in found if name not in expected and name not in empty),
            reshaped=tuple(
                (name, found[name], shape)
                for name, shape in expected.items()
                if name in found and name not in empty and found[name] != shape
            ),
        )

    def __len__(self) -> int:
        """Return how many tensors differ."""
        return sum(map(len, (self.empty, self.missing, self.unknown, self.reshaped)))

    def __str__(self) -> str:
        """Say what differs, with the first three names of each kind."""
        shapes = [f"{name} {list(found)} instead of {list(wanted)}" for name, found, wanted in self.reshaped]
        kinds = (
            ("has {} of shape [0]", self.empty),
            ("lacks {}", self.missing),
            ("has {} of another shape", shapes),
            ("has {} without a place in the model", self.unknown),
        )
        return ", and ".join(
            f"{words.format(_count(names))} ({_first_names(names)})" for words, names in kinds if names
        )


def _count(names: Collection[str]) -> str:
    return f"{len(names)} weight{'s' * (len(names) != 1)}"


def _first_names(names: Collection[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(list(names)[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _remedy(difference: Difference, expected: Shapes) -> str:
    """Return what to do about a checkpoint that differs."""
    if difference.empty:
        return _ZERO3
    if any(".lora_" in name or ".base_layer." in name for name in difference.unknown):
        return "it holds an adapter that is not merged: pass the adapter's own folder with --adapter, or merge it first"
    vision = [name for name in expected if name.startswith("visual.")]
    if set(vision) <= set(difference.missing):
        return "that is the whole vision tower: export the complete Qwen-VL model, not its language model alone"
    sizes = {found[0] for name, found, wanted in difference.reshaped if found[1:] == wanted[1:]}
    if not difference.missing and {name for name, *_ in difference.reshaped} <= {EMBEDDING, HEAD} and len(sizes) == 1:
        return f"its vocabulary was resized: set vocab_size to {sizes.pop()} in config.json"
    return "config.json and weights must come from one model: copy the complete checkpoint"
