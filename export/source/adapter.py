"""A checkpoint folder with a LoRA adapter merged, so that every later step sees one ordinary checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from wise_edge.export.progress import Progress
from wise_edge.policy.adapter import check_adapter, merge_adapter
from wise_edge.policy.checkpoint import load_policy

_SIDE_SUFFIXES = {".json", ".jinja", ".txt", ".yaml"}


def merge_checkpoint(base: Path, adapter: Path, out: Path, progress: Progress) -> None:
    """Write a checkpoint folder: the base with the adapter's weights added in float32, stored in the base's dtype.

    Args:
        base: Hugging Face folder of the policy that the adapter was trained on.
        adapter: PEFT's folder.
        out: an empty folder.
        progress: called at each step.

    Raises:
        UsageError: the folder holds no adapter, or the adapter was trained on another base.
        MissingExtraError: peft is not installed.
    """
    check_adapter(adapter)
    progress("loading the policy")
    model = load_policy(base)
    stored = json.loads((base / "config.json").read_text(encoding="utf-8")).get("dtype")
    progress("merging the adapter")
    merge_adapter(model, adapter, base=base, dtype=stored or "float32").save_pretrained(out)
    for file in base.iterdir():  # of tokenizer, processor, generation and prompts, whichever of them a version writes
        if file.suffix in _SIDE_SUFFIXES and file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
