"""The shards in which verl's FSDP training saves a policy: one file for each rank, the config in a folder beside them.

    actor/model_world_size_2_rank_0.pt, actor/model_world_size_2_rank_1.pt, actor/huggingface/config.json, …

EasyR1, Seg-Zero and WISE, which grew from verl, save the same
(https://github.com/volcengine/verl/blob/main/verl/utils/checkpoint/fsdp_checkpoint_manager.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.errors import UsageError
from wise_edge.native.sharded_pickles import Piece, join_pieces, load_pieces
from wise_edge.native.weight_files import DTYPES, StoredTensor
from wise_edge.policy.architecture import check_weights

if TYPE_CHECKING:
    from torch import Tensor

PATTERN = "model_world_size_*_rank_*.pt"
"""Names of the files."""
CONFIG_FOLDER = "huggingface"
"""Where verl saves config, tokenizer and processor."""
_NAME = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


def find_shards(path: Path) -> Path | None:
    """Return the folder of shards that a path names, itself or by the config in it; None if it names none."""
    has_weights = any(path.glob("*.safetensors")) or any(path.glob("*.bin"))  # verl saves them whole too, if asked
    folder = path.parent if path.name == CONFIG_FOLDER and not has_weights else path
    return folder if any(folder.glob(PATTERN)) else None


def list_shards(folder: Path) -> list[Path]:
    """Return the files of all ranks, in their order.

    Raises:
        UsageError: some are missing, or there are those of two trainings.
    """
    found = {match.groups(): file for file in sorted(folder.glob(PATTERN)) if (match := _NAME.fullmatch(file.name))}
    sizes = sorted({int(size) for size, _ in found})
    if len(sizes) > 1:
        raise UsageError(f"{folder} holds shards of {sizes[0]} and of {sizes[1]} ranks; move those that are old away")
    ranks = {int(rank): file for (_, rank), file in found.items()}
    if missing := [rank for rank in range(max(sizes, default=1)) if rank not in ranks]:
        name = f"model_world_size_{sizes[0] if sizes else 1}_rank_{missing[0]}.pt"
        more = f", and {len(missing) - 1} more," if missing[1:] else ""
        raise UsageError(f"{folder / name}{more} is missing; every rank saves its own, copy them from all machines")
    return [ranks[rank] for rank in sorted(ranks)]


class ShardedPolicy:
    """A policy's tensors in the shards of all ranks, each joined when it is read; the files stay mapped.

    Args:
        folder: has the shards.

    Raises:
        UsageError: shards are missing or damaged, hold an adapter beside its base, or are not those of the architecture
            that the config describes.
        MissingExtraError: torch or transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.files = list_shards(folder)
        self.config_folder = folder / CONFIG_FOLDER
        if not (self.config_folder / "config.json").is_file():
            raise UsageError(
                f"{folder} has no {CONFIG_FOLDER}/config.json, in which verl saves what was trained; copy config.json, "
                "the tokenizer's and the processor's files of the start there"
            )
        self._ranks = [load_pieces(file, rank) for rank, file in enumerate(self.files)]
        names = self._ranks[0].keys()
        for file, pieces in zip(self.files, self._ranks, strict=True):
            if pieces.keys() != names:
                other = sorted(pieces.keys() ^ names)[0]
                raise UsageError(
                    f"{file} and {self.files[0].name} do not hold the same tensors ({other}); copy them again"
                )
        if not names:
            raise UsageError(f"{self.files[0]} holds no tensors; copy it again, or use an earlier step of the training")
        if any(".lora_" in name for name in names):
            raise UsageError(_explain_adapter(folder))
        check_weights(self.config_folder, self.tensors(), source=folder)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranks[0])

    def piece(self, name: str) -> Piece:
        """Return the first rank's piece of a tensor."""
        return self._ranks[0][name]

    def read(self, name: str) -> Tensor:
        """Return a whole tensor, in the type of its shards.

        Raises:
            UsageError: the ranks' pieces do not make one.
        """
        try:
            return join_pieces([pieces[name] for pieces in self._ranks])
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"{self.files[0].parent}: {name} cannot be joined: {error}; copy the shards again"
            ) from error

    def tensors(self) -> Iterator[StoredTensor]:
        """Yield where each whole tensor begins: its name, type and shape, and the first rank's file."""
        for name, piece in self._ranks[0].items():
            dtype = str(piece.values.dtype).removeprefix("torch.")
            yield StoredTensor(self.files[0], name, DTYPES.get(dtype, dtype), piece.shape)


def _explain_adapter(folder: Path) -> str:
    words = f"{folder} holds shards of a LoRA adapter and its base; pass the base that it was trained on with --policy"
    if (folder / "lora_adapter").is_dir():
        return f"{words} and --adapter {folder / 'lora_adapter'}"
    return (
        f"{words}, and with --adapter MERGED/lora_adapter, which this writes: python -m verl.model_merger merge "
        f"--backend fsdp --local_dir {folder} --target_dir MERGED"
    )
