"""The one place that judges whether a folder is a policy's checkpoint: for export, merging, evaluation and training.

The judgment reads the config and the headers of the weights, not the weights, so it takes a moment for any size and
comes before all work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.weight_files import find_weight_files, list_tensors
from wise_edge.policy.architecture import CLASSES, check_weights
from wise_edge.policy.foreign import refuse_foreign, refuse_path
from wise_edge.policy.quantized import refuse_quantized


def check_policy_folder(folder: Path) -> dict[str, Any]:
    """Judge a policy's checkpoint.

    Args:
        folder: a Hugging Face folder of an unquantized Qwen-VL model, its weights as safetensors or `.bin`.

    Returns:
        Content of its config.json.

    Raises:
        UsageError: it is something else, incomplete, damaged or quantized; the message says what, and what to do.
        MissingExtraError: torch, transformers or safetensors is not installed.
    """
    refuse_path(folder)
    for file in sorted(folder.iterdir()):
        refuse_lfs_pointer(file)  # the tokenizer's and the processor's files too, which others read
    if not (folder / "config.json").is_file() or not find_weight_files(folder):
        refuse_foreign(folder)
    config = read_json(folder / "config.json")
    if (family := str(config.get("model_type"))) not in CLASSES:
        raise UsageError(f"{folder / 'config.json'}: model_type is {family!r}; supported are {', '.join(CLASSES)}")
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} holds a model and an adapter; move the adapter's files to a folder of their own, and pass that "
            "one with --adapter"
        )
    try:
        tensors = list_tensors(folder)
    except UsageError:
        refuse_quantized(folder, config, ())  # torchao, for example, pickles classes of its own
        raise
    refuse_quantized(folder, config, tensors)
    check_weights(folder, tensors)
    return config
