"""Merging a LoRA adapter into the model that it was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require

CONFIG = "adapter_config.json"
"""The file by which PEFT's folder of an adapter is known."""
_LONGEST_REASON = 120  # characters of PEFT's own message; it lists every tensor that does not fit


def check_adapter(folder: Path) -> None:
    """Raise `UsageError` if a folder holds no adapter, before the base is loaded for it."""
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} holds no adapter: it has no {CONFIG}")


def merge_adapter(model: Any, adapter: Path, *, base: str | Path, dtype: str) -> Any:
    """Return a model with an adapter's weights added.

    Args:
        model: transformers' model of the base; the sums are computed in its dtype, and it is changed.
        adapter: PEFT's folder.
        base: the base's name, for messages.
        dtype: torch's name of the dtype of the returned weights.

    Raises:
        UsageError: the folder holds no adapter, or the adapter was trained on another base.
        MissingExtraError: peft is not installed.
    """
    torch, peft = require("torch", "train"), require("peft", "train")
    check_adapter(adapter)
    try:
        with warnings.catch_warnings():  # peft uses names that transformers will drop, which no user can fix
            warnings.simplefilter("ignore", FutureWarning)
            merged = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = first_line(error)[:_LONGEST_REASON]
        raise UsageError(f"{adapter} does not fit {base} ({reason}); name the base it was trained on") from error
    return merged.to(getattr(torch, dtype))
