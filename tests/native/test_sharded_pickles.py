"""States that FSDP splits over ranks: every version's files give the whole tensors, and nothing in them is run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from locations import SUPPORT
from policies.fsdp_shards import save_shards
from wise_edge.errors import UsageError
from wise_edge.native.sharded_pickles import join_pieces, load_pieces
from wise_edge.native.torch_pickles import load_pickle

WRITTEN = SUPPORT / "data" / "fsdp"


def join(folder: Path) -> dict[str, torch.Tensor]:
    ranks = [load_pieces(file, rank) for rank, file in enumerate(sorted(folder.glob("model_world_size_*")))]
    return {name: join_pieces([pieces[name] for pieces in ranks]) for name in ranks[0]}


@pytest.mark.parametrize("version", ["torch-2.4-hsdp", "torch-2.6", "torch-2.6-one-rank", "torch-2.14-fsdp2"])
def test_what_fsdp_of_each_version_wrote_gives_the_whole_state(version: str) -> None:
    whole = torch.load(WRITTEN / version / "full.pt")
    joined = join(WRITTEN / version)
    assert joined.keys() == whole.keys()
    assert all(torch.equal(joined[name], whole[name]) for name in whole)


@pytest.mark.parametrize(("mesh", "dim"), [((2,), 0), ((5,), 0), ((8,), 1), ((2, 3), 0), ((3, 1), 1)])
def test_every_mesh_and_dimension_gives_the_whole_state(mesh: tuple[int, ...], dim: int, tmp_path: Path) -> None:
    whole = {"matrix": torch.randn(7, 5), "vector": torch.randn(3), "cube": torch.randn(4, 9, 2).bfloat16()}
    joined = join(save_shards(whole, tmp_path, mesh, dim))
    assert all(torch.equal(joined[name], whole[name]) and joined[name].dtype == whole[name].dtype for name in whole)


def save_placed(file: Path, local: torch.Tensor, *placements: Placement) -> None:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())  # type: ignore[no-untyped-call]
    try:
        mesh = init_device_mesh("cpu", (2,))
        torch.save({"a": DTensor.from_local(local, mesh, placements, run_check=False)}, file)
    finally:
        dist.destroy_process_group()


def test_a_sum_that_is_not_computed_yet_is_refused(tmp_path: Path) -> None:
    save_placed(tmp_path / "a.pt", torch.ones(2), Partial())
    with pytest.raises(UsageError, match=r"a\.pt: a is not split as FSDP splits \(Partial instead of Shard\)"):
        load_pieces(tmp_path / "a.pt", 0)


def test_a_tensor_that_every_rank_has_is_taken_once(tmp_path: Path) -> None:
    save_placed(tmp_path / "a.pt", torch.arange(2), Replicate())
    piece = load_pieces(tmp_path / "a.pt", 0)["a"]
    assert (piece.split, piece.place, piece.shape) == ((None,), (0,), (2,))


def test_a_piece_that_is_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    save_placed(tmp_path / "a.pt", torch.zeros(1).expand(1 << 40), Shard(0))
    with pytest.raises(UsageError, match="a tensor is larger than what is stored of it"):
        load_pieces(tmp_path / "a.pt", 0)


class Call:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def test_nothing_of_torch_distributed_is_called(tmp_path: Path) -> None:
    torch.save({"a": Call(dist.init_process_group, "fake")}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="a is a init_process_group, which is not a tensor of FSDP"):
        load_pieces(tmp_path / "a.pt", 0)
    assert not dist.is_initialized()


def test_other_code_is_refused_and_what_others_allowed_stays(tmp_path: Path) -> None:
    torch.save({"a": Call(math.sqrt, 2.0)}, tmp_path / "a.pt")
    with torch.serialization.safe_globals([math.sqrt]):
        before = set(torch.serialization.get_safe_globals())
        for load in (load_pickle, lambda file: load_pieces(file, 0)):
            with pytest.raises(UsageError, match=r"it holds an object of math\.sqrt"):
                load(tmp_path / "a.pt")  # type: ignore[operator]
        assert set(torch.serialization.get_safe_globals()) == before


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "a.pt")
    with pytest.raises(UsageError, match="is not a dictionary of tensors"):
        load_pieces(tmp_path / "a.pt", 0)


def test_ranks_that_are_of_no_one_mesh_are_named(tmp_path: Path) -> None:
    save_shards({"a": torch.randn(6, 2)}, tmp_path, (3,))
    ranks = [load_pieces(tmp_path / f"model_world_size_3_rank_{rank}.pt", rank)["a"] for rank in range(3)]
    with pytest.raises(ValueError, match="not those of one mesh"):
        join_pieces([ranks[0], ranks[2]])
    with pytest.raises(ValueError, match="not those of one mesh"):
        join_pieces([ranks[0], ranks[0], ranks[1]])
    with pytest.raises(ValueError, match=r"make \[4, 2\] instead of \[6, 2\]"):
        join_pieces(ranks[:2])
