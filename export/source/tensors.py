"""The weights of a Hugging Face folder, read one tensor at a time.

Names are normalized to one layout: `model.…` and `lm_head.…` for the language model, `visual.…`
for the vision tower (older and newer versions of transformers save the same weights under different prefixes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from wise_edge.errors import UsageError

_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
)
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True)
class _Place:
    file: Path
    stored_name: str
    shape: tuple[int, ...]


class CheckpointTensors:
    """The tensors in the safetensors files of a folder.

    Args:
        folder: holds `model.safetensors`, or `model.safetensors.index.json` and the shards that it names.

    Raises:
        UsageError: a file is missing or damaged, or two tensors have the same name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        for file in weight_files(folder):
            for stored, shape in _shapes(file):
                name = normalize_name(stored)
                if name in self._places:
                    raise UsageError(f"{file} holds {stored}, which {self._places[name].file.name} holds too")
                self._places[name] = _Place(file, stored, shape)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._places[name].shape

    @property
    def values(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(place.shape) for place in self._places.values())

    def read(self, name: str) -> Tensor:
        """Return a tensor as stored; its file stays mapped as long as the tensor exists.

        Raises:
            UsageError: the file cannot be read.
        """
        place = self._places[name]
        with _open(place.file) as file:
            tensor: Tensor = file.get_tensor(place.stored_name)
        return tensor


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder, in the order of their names.

    Raises:
        UsageError: there is none, or the index names a missing one.
    """
    index = folder / _INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{index} is not an index of safetensors files; copy it again") from error
    else:
        names = [_SINGLE]
    files = [folder / name for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(f"{missing[0]} is missing; copy the whole checkpoint")
    return files


def normalize_name(name: str) -> str:
    """Return a tensor's name in the one layout."""
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with _open(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is not a mapping
            yield name, tuple(tensors.get_slice(name).get_shape())


def _open(file: Path) -> Any:
    try:
        return safetensors.safe_open(file, framework="pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{file} cannot be read ({error}); copy it again") from error
