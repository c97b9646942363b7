"""A checkpoint folder with a LoRA adapter merged, so that every later step sees one ordinary checkpoint."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from wise_edge.bundle.manifest import Figure
from wise_edge.export.precisions import LOGIT_TOLERANCES
from wise_edge.export.progress import Progress
from wise_edge.export.source.side_files import copy_side_files
from wise_edge.native.pretrained import save_pretrained
from wise_edge.native.weight_files import DTYPES
from wise_edge.policy.adapter import attach_adapter, merge_attached, probe
from wise_edge.policy.adapter_names import FittedAdapter
from wise_edge.policy.answers.conventions import FILE as CONVENTIONS
from wise_edge.policy.checkpoint import load_policy, stored_dtype
from wise_edge.policy.folder import check_policy_folder

_OWN_FILES = (
    ("prompts.json",),
    (CONVENTIONS,),
    ("chat_template.jinja",),
    ("tokenizer.json",),
    ("tokenizer_config.json",),
    ("processor_config.json", "preprocessor_config.json"),
)
"""Files that an adapter may bring itself, the words and pictures that it was trained with; of several one is enough."""


def merge_checkpoint(
    base: Path, adapter: FittedAdapter, out: Path, progress: Progress, *, verify: bool
) -> Iterator[Figure]:
    """Write a checkpoint: the base with the adapter's weights added in float32, stored in the base's type.

    Prompts, conventions, chat template, tokenizer and image processor are the adapter's where it brings its own.

    Args:
        base: Hugging Face folder of the policy that the adapter was fitted to.
        adapter: the adapter.
        out: an empty folder.
        progress: called at each step.
        verify: compare with the base and the adapter beside it.

    Yields:
        Differences of logits between base plus adapter and the merged policy, in float32 and as stored. Each model
        answers one short prompt, and one model is in memory at a time.

    Raises:
        UsageError: PEFT cannot merge the adapter, or the base is damaged.
        MissingExtraError: peft is not installed.
    """
    progress("loading the policy")
    attached = attach_adapter(load_policy(base), adapter, base=base)
    expected = probe(attached) if verify else None
    progress("merging the adapter")
    merged = merge_attached(attached)
    if expected is not None:
        yield _compare("merged adapter: logits", merged, expected, "float32")
    dtype = stored_dtype(base)
    save_pretrained(merged.to(getattr(torch, dtype)), out)
    _copy_side_files(base, adapter.folder, out)
    check_policy_folder(out)
    del attached, merged
    gc.collect()
    if expected is not None:
        progress("comparing the merged policy with base and adapter")
        yield _compare(f"merged adapter, stored in {dtype}: logits", load_policy(out), expected, dtype)


def _copy_side_files(base: Path, adapter: Path, out: Path) -> None:
    """Copy what a base holds beside config and weights; an adapter's own files replace the base's."""
    copy_side_files(base, out, but=("config.json",))
    for names in _OWN_FILES:
        if own := [name for name in names if (adapter / name).is_file()]:
            for name in names:
                (out / name).unlink(missing_ok=True)
            for name in own:
                shutil.copyfile(adapter / name, out / name)


def _compare(what: str, model: Any, expected: torch.Tensor, dtype: str) -> Figure:
    error = (probe(model) - expected).abs().max() / max(1.0, float(expected.abs().max()))
    return Figure(what, float(error), "relative error", at_most=LOGIT_TOLERANCES[DTYPES[dtype]])
