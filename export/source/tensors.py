"""The weights of a Hugging Face folder, read one tensor at a time.

Names are those of `wise_edge.policy.architecture.normalize_name`, without tensors that follow from the config.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wise_edge.native.weight_files import list_tensors
from wise_edge.policy.architecture import EMBEDDING, HEAD, normalize_tensors


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


def has_own_head(config: Mapping[str, Any], tensors: CheckpointTensors) -> bool:
    """Return whether the output matrix is another than the token embedding.

    A head that is stored and differs is one of its own, whatever the config says: transformers loads it so too.

    Args:
        config: transformers' config as a dictionary.
        tensors: the checkpoint.
    """
    if HEAD not in tensors:
        return False
    return not (is_tied(config) and torch.equal(tensors.read(HEAD), tensors.read(EMBEDDING)))


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether a config says that the output matrix is the token embedding."""
    return bool(config.get("tie_word_embeddings") or config["text_config"].get("tie_word_embeddings"))
