"""What one rank of a training saved of a model that FSDP splits, read without running anything of torch.distributed.

A rank's file holds its piece of each tensor as a DTensor, which says where the piece belongs. Each version of torch
describes the ranks' mesh in another way, and reads that of another version as a mesh without its attributes. What all
of them write is used: the placements, and the rank's own coordinate in the mesh.
https://docs.pytorch.org/docs/stable/distributed.tensor.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.native.torch_pickles import load_pickle

if TYPE_CHECKING:
    from torch import Tensor

_PACKAGE = "torch.distributed."
_TENSOR = ".DTensor"


@dataclass(frozen=True)
class Piece:
    """A rank's piece of a tensor.

    Attributes:
        values: the piece, memory-mapped.
        shape: of the whole tensor.
        split: for each dimension of the ranks' mesh, which dimension of the tensor is split along it; None if none is.
        place: the rank's coordinate in each dimension of the mesh.
    """

    values: Tensor
    shape: tuple[int, ...]
    split: tuple[int | None, ...]
    place: tuple[int, ...]


def load_pieces(file: Path, rank: int) -> dict[str, Piece]:
    """Return a rank's pieces of all tensors.

    Args:
        file: what `torch.save` wrote of a sharded state: DTensors, or plain tensors that every rank has whole.
        rank: the rank that wrote it.

    Raises:
        UsageError: it cannot be read, or holds something else, see `load_pickle`; or tensors are placed in a way that
            FSDP alone does not.
        MissingExtraError: torch is not installed.
    """
    state = load_pickle(file, _stand_in)
    if not isinstance(state, Mapping):
        raise UsageError(f"{file} is not a dictionary of tensors; save the model's state_dict()")
    return {str(name): _piece(f"{file}: {name}", value, rank) for name, value in state.items()}


def join_pieces(pieces: Sequence[Piece]) -> Tensor:
    """Return a whole tensor, given the pieces of all ranks.

    Raises:
        ValueError: the pieces do not make one tensor of its shape.
    """
    first, found = pieces[0], {piece.place: piece.values for piece in pieces}
    sizes = tuple(max(coordinates) + 1 for coordinates in zip(*found, strict=True))
    if any((piece.shape, piece.split) != (first.shape, first.split) for piece in pieces):
        raise ValueError("its ranks disagree about its shape")
    if len(found) != len(pieces) or math.prod(sizes) != len(pieces):
        raise ValueError("its ranks are not those of one mesh")

    def assemble(*place: int) -> Tensor:
        if len(place) == len(sizes):
            return found[place]
        dimension = first.split[len(place)]
        if dimension is None:  # all ranks have the same
            return assemble(*place, 0)
        parts = [assemble(*place, index) for index in range(sizes[len(place)])]
        whole: Tensor = require("torch", "export").cat(parts, dimension)
        return whole

    whole = assemble()
    if whole.shape != first.shape:
        raise ValueError(f"its pieces make {list(whole.shape)} instead of {list(first.shape)}")
    return whole


def _piece(name: str, value: Any, rank: int) -> Piece:
    torch = require("torch", "export")
    if not isinstance(value, torch.Tensor):
        kind = type(value).__name__
        raise UsageError(
            f"{name} is a {kind}, which is not a tensor of FSDP with a device mesh; merge it with its trainer"
        )
    if (spec := getattr(value, "spec", None)) is None:
        return Piece(value, tuple(value.shape), (None,), (rank,))
    try:
        split = tuple(_split(placement) for placement in spec.placements)
        place = tuple(map(int, spec.mesh._coordinate_on_dim))
        if len(split) != len(place) or min(place) < 0 or not isinstance(value.local, torch.Tensor):
            raise TypeError("not a rank's piece")
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{name} is not split as FSDP splits ({error}); merge it with its trainer") from error
    return Piece(value.local, tuple(value.shape), split, place)


def _split(placement: Any) -> int | None:
    kind = type(placement).__name__
    if kind == "Replicate":
        return None
    if kind != "Shard":  # a sum that is not computed yet, or tensor parallelism
        raise ValueError(f"{kind.removeprefix('_')} instead of Shard")
    return int(placement.dim)


def _stand_in(name: str) -> type | None:
    """Return what to read objects of a class as: those of torch.distributed as records of their attributes."""
    if not name.startswith(_PACKAGE):
        return None
    return _tensor_class() if name.endswith(_TENSOR) else type(name.rpartition(".")[2], (_Record,), {})


class _Record:
    """An object without its class's code: what was pickled of it becomes attributes."""

    def __new__(cls, *_: Any) -> _Record:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        vars(self).update(_attributes(state))


def _attributes(state: Any) -> dict[str, Any]:
    """Return the attributes in a pickled state: a dictionary, or two, the second of a class's slots."""
    parts = state if isinstance(state, tuple) else (state,)
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


@lru_cache(maxsize=1)
def _tensor_class() -> type:
    """Return the stand-in for DTensor, which torch makes from a tensor's shape alone before it sets its state."""
    torch = require("torch", "export")

    class Sharded(torch.Tensor):  # type: ignore[name-defined,misc]
        @classmethod
        def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
            raise NotImplementedError("a piece of a tensor does not compute")

        def __setstate__(self, state: Any) -> None:
            attributes = _attributes(state)
            self.local, self.spec = attributes["_local_tensor"], attributes["_spec"]

    return Sharded
