"""The weights of a Hugging Face folder, read one tensor at a time.

Names are normalized to one layout: `model.…` and `lm_head.…` for the language model, `visual.…`
for the vision tower (older and newer versions of transformers save the same weights under different prefixes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from wise_edge.errors import UsageError
from wise_edge.native.weight_files import StoredTensor, list_tensors

_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
)


class CheckpointTensors:
    """The tensors in the weight files of a folder.

    Args:
        folder: a checkpoint that `wise_edge.policy.folder` accepts.

    Raises:
        UsageError: a file is missing or damaged, or two tensors have the same name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stored: dict[str, StoredTensor] = {}
        for tensor in list_tensors(folder):
            name = normalize_name(tensor.name)
            if name in self._stored:
                raise UsageError(f"{tensor.file} holds {tensor.name}, which {self._stored[name].file.name} holds too")
            self._stored[name] = tensor

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._stored[name].shape

    @property
    def values(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(tensor.shape) for tensor in self._stored.values())

    def read(self, name: str) -> Tensor:
        """Return a tensor as stored; its file stays mapped as long as the tensor exists.

        Raises:
            UsageError: the file cannot be read.
        """
        return self._stored[name].read()


def normalize_name(name: str) -> str:
    """Return a tensor's name in the one layout."""
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
