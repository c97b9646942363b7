"""The result of a training: a policy as one Hugging Face folder, with an adapter merged into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from wise_edge.files.writing import replacing_folder
from wise_edge.policy.adapter import attach_adapter, merge_attached
from wise_edge.policy.adapter_names import fit_adapter
from wise_edge.policy.folder import check_policy_folder
from wise_edge.training.wise.checkpoints import seal
from wise_edge.training.wise.policy import StartPolicy, save_side_files


def write_policy(start: StartPolicy, trained: Path, folder: Path, *, dtype: str, adapter: bool) -> None:
    """Write a trained policy as one Hugging Face folder, which appears complete and replaces an existing one.

    Args:
        start: the policy before the training.
        trained: PEFT's folder of the adapter, or a folder with all weights.
        folder: the folder to write.
        dtype: torch's name of the type of the written weights. The base of an adapter is loaded again in it, so an
            adapter that was trained on 4-bit weights is merged into the full ones.
        adapter: whether `trained` is an adapter.

    Raises:
        UsageError: the adapter does not fit the policy.
    """
    model = _load(start.name if adapter else str(trained), dtype)
    if adapter:
        fitted = fit_adapter(trained, model.config, base=start.name)
        model = merge_attached(attach_adapter(model, fitted, base=start.name)).to(getattr(torch, dtype))
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh)
        check_policy_folder(fresh)
        save_side_files(start, fresh)
        seal(fresh, source=trained)


def _load(name: str, dtype: str) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(name, dtype=getattr(torch, dtype))
