"""Shards as verl's FSDP training saves them, made of real DTensors: each rank in turn, in this one process.

torch's fake process group gives this process any rank of any mesh and communicates nothing, so a rank's piece is cut
here, as `torch.chunk` cuts, and handed to DTensor. `tests/native/test_sharded_pickles.py` holds the files that FSDP
itself wrote in several processes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore


def save_shards(weights: Mapping[str, torch.Tensor], folder: Path, mesh: Sequence[int] = (2,), dim: int = 0) -> Path:
    """Save weights in the shards of all ranks of a mesh, which is split along its last dimension.

    Args:
        weights: a state, for example of a safetensors file.
        folder: verl's `actor`.
        mesh: ranks in each dimension; more than one is FSDP in replicas.
        dim: the dimension of the tensors that is split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size, names = math.prod(mesh), ("ddp", "fsdp")[-len(mesh) :]
    for rank in range(size):
        dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())  # type: ignore[no-untyped-call]
        try:
            ranks = init_device_mesh("cpu", tuple(mesh), mesh_dim_names=names)
            state = {}
            for name, whole in weights.items():
                axis = dim if whole.ndim > dim else 0
                pieces, place = whole.chunk(mesh[-1], axis), rank % mesh[-1]
                piece = pieces[place] if place < len(pieces) else whole.narrow(axis, 0, 0)
                placements = [*[Replicate()] * (len(mesh) - 1), Shard(axis)]
                state[name] = DTensor.from_local(
                    piece.clone(), ranks, placements, run_check=False, shape=whole.shape, stride=whole.stride()
                )
            torch.save(state, folder / f"model_world_size_{size}_rank_{rank}.pt")
        finally:
            dist.destroy_process_group()
    return folder


def save_actor(checkpoint: Path, folder: Path, mesh: Sequence[int] = (2,), dim: int = 0) -> Path:
    """Write a checkpoint folder in verl's form: shards, and everything but the weights in `huggingface`."""
    from safetensors.torch import load_file

    save_shards(load_file(checkpoint / "model.safetensors"), folder, mesh, dim)
    shutil.copytree(checkpoint, folder / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    return folder
