"""What a training gives away: a policy as one Hugging Face folder, an adapter merged into what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from wise_edge.files import replacing_folder
from wise_edge.policy.adapter import merge_adapter
from wise_edge.training.wise.policy import StartPolicy, save_processor_and_prompts


def write_policy(start: StartPolicy, trained: Path, folder: Path, *, dtype: str, adapter: bool) -> None:
    """Write a trained policy as one Hugging Face folder; it appears whole, and replaces what is there.

    Args:
        start: the policy before the training.
        trained: what was trained: PEFT's folder of an adapter, or a folder of all weights.
        folder: where to.
        dtype: of the written weights, torch's name. An adapter's base is read anew in it, so that an adapter that was
            trained on weights of 4 bits is merged into the full ones.
        adapter: which of the two `trained` is.

    Raises:
        UsageError: the adapter does not fit the policy.
    """
    model = _load(start.name if adapter else str(trained), dtype)
    if adapter:
        model = merge_adapter(model, trained, base=start.name, dtype=dtype)
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh)
        save_processor_and_prompts(start, fresh)


def _load(name: str, dtype: str) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(name, dtype=getattr(torch, dtype))
