"""A sharded policy as an ordinary checkpoint folder, written one file at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from wise_edge.export.progress import Progress
from wise_edge.export.source.side_files import copy_side_files
from wise_edge.files.documents import to_json
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.shards import ShardedPolicy

_FILE_BYTES = 2 * 10**9
"""Of a weight file, which is in memory while it is written."""


def join_shards(policy: ShardedPolicy, out: Path, progress: Progress, file_bytes: int = _FILE_BYTES) -> None:
    """Write a checkpoint of a sharded policy, in the type of its shards.

    Args:
        policy: the shards.
        out: an empty folder.
        progress: called for each file.
        file_bytes: the largest weight file, of more than one tensor.

    Raises:
        UsageError: the shards do not make whole tensors.
    """
    empty = {
        name: torch.empty(policy.piece(name).shape, dtype=policy.piece(name).values.dtype, device="meta")
        for name in policy
    }
    plan = split_torch_state_dict_into_shards(
        empty, filename_pattern="model{suffix}.safetensors", max_shard_size=file_bytes
    )
    for done, (file, names) in enumerate(plan.filename_to_tensors.items(), 1):
        save_file({name: policy.read(name).contiguous() for name in names}, out / file, metadata={"format": "pt"})
        progress("joining the shards", done / len(plan.filename_to_tensors))
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(to_json(index, indent=2), encoding="utf-8")
    copy_side_files(policy.config_folder, out)
    check_policy_folder(out)
