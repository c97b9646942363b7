"""Merging a LoRA adapter into its base, so that everything after it sees one ordinary checkpoint."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

from wise_edge.errors import UsageError, first_line
from wise_edge.export.progress import Progress
from wise_edge.extras import require
from wise_edge.policy.checkpoint import load_policy

CONFIG = "adapter_config.json"
_SIDE_FILES = (
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "prompts.json",
    "recipe.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
)


def merge_adapter(base: Path, adapter: Path, out: Path, progress: Progress) -> None:
    """Write a checkpoint folder: the base with the adapter's weights added.

    Args:
        base: Hugging Face folder of the policy that the adapter was trained on.
        adapter: PEFT's folder.
        out: an empty folder.
        progress: told what is being done.

    Raises:
        UsageError: the folder holds no adapter, or it was made for another base.
        MissingExtraError: peft is not installed.
    """
    peft = require("peft", "train")
    if not (adapter / CONFIG).is_file():
        raise UsageError(f"{adapter} holds no adapter: it has no {CONFIG}")
    progress("loading the policy")
    model = load_policy(base)
    stored = json.loads((base / "config.json").read_text(encoding="utf-8")).get("dtype")
    progress("merging the adapter")
    try:
        with warnings.catch_warnings():  # peft asks transformers by names that it will drop; no user can mend that
            warnings.simplefilter("ignore", FutureWarning)
            merged = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UsageError(
            f"{adapter} does not fit {base} ({first_line(error)[:120]}); name the base it was trained on"
        ) from error
    torch = require("torch", "export")
    merged.to(getattr(torch, stored) if stored else torch.float32).save_pretrained(out)
    for name in _SIDE_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
