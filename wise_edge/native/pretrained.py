"""Loading and saving models of transformers, without noise and without random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.native.weight_files import list_tensors


def load_pretrained(class_name: str, folder: Path, *, dtype: Any, attention: str, partial: bool = False) -> Any:
    """Load the weights of a Hugging Face folder.

    Args:
        class_name: name of transformers' model class.
        folder: the folder, with config.json and weights as `wise_edge.native.weight_files` reads them.
        dtype: torch's type of the loaded weights.
        attention: transformers' name of the attention to use, for example "eager".
        partial: whether the folder may hold weights that the class does not have; they are skipped silently.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        UsageError: the weights are damaged, missing or do not fit the config.
        MissingExtraError: torch, transformers or safetensors is not installed.
    """
    transformers = require("transformers", "export")
    require("safetensors", "export")
    list_tensors(folder)  # names a damaged file, a missing shard or a pointer of Git LFS; transformers names none
    try:
        with _silenced(transformers, warnings=partial):
            model, report = getattr(transformers, class_name).from_pretrained(
                folder, dtype=dtype, attn_implementation=attention, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # a config of other types fails in validators' own classes, or anywhere in a model
        raise UsageError(f"{folder} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):  # transformers would continue with random numbers
        raise UsageError(f"{folder} lacks the weight {missing[0]}; copy the complete checkpoint")
    return model.eval()


def save_pretrained(model: Any, folder: Path) -> None:
    """Write a model's config and weights as a Hugging Face folder.

    Args:
        model: a model of transformers.
        folder: where to write them.
    """
    with _silenced(require("transformers", "export"), warnings=False):
        model.save_pretrained(folder)


@contextmanager
def _silenced(transformers: ModuleType, *, warnings: bool) -> Iterator[None]:
    """Hide transformers' progress bars, and its warnings too if `warnings`, while the block runs."""
    logs = transformers.utils.logging
    had_bars, verbosity = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    if warnings:
        logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if had_bars:
            logs.enable_progress_bar()
