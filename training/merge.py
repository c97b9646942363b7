"""Merging a low-rank adapter into the weights it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.training.wise_policy import save_beside

if TYPE_CHECKING:
    from wise_edge.training.wise_policy import PolicySource


def merge_adapter(source: PolicySource, adapter: Path, dtype: str, folder: Path) -> None:
    """Write base plus adapter as one Hugging Face folder.

    The base is read anew in `dtype`, so an adapter that was trained on weights of 4 bits is merged into the full ones.

    Args:
        source: the policy that the adapter was trained on.
        adapter: PEFT's folder.
        dtype: "float32" or "bfloat16".
        folder: where to; it appears whole, and replaces what is there.

    Raises:
        UsageError: the adapter does not fit the policy.
    """
    transformers, peft, torch = (require(name, "train") for name in ("transformers", "peft", "torch"))
    base = transformers.AutoModelForImageTextToText.from_pretrained(source.name, dtype=getattr(torch, dtype))
    try:
        model = peft.PeftModel.from_pretrained(base, adapter)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{adapter} does not fit {source.name}: {str(error).splitlines()[0]}") from error
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.merge_and_unload().save_pretrained(partial)
    save_beside(source, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
