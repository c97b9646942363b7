"""The weights of a Hugging Face folder, read one tensor at a time.

Names are those of `wise_edge.policy.architecture.normalize_name`, without tensors that follow from the config.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from wise_edge.native.weight_files import list_tensors
from wise_edge.policy.architecture import normalize_tensors


class CheckpointTensors:
    """The tensors in the weight files of a folder.

    Args:
        folder: a checkpoint that `wise_edge.policy.folder` accepts.

    Raises:
        UsageError: a file is missing or damaged, or two tensors have the same name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stored = normalize_tensors(list_tensors(folder))

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
