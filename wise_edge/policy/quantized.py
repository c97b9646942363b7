"""Checkpoints whose weights are quantized already, which wise-edge neither converts nor trains.

Export quantizes for each target itself, from the numbers that training left. A quantized folder is known by its config,
by a file that its tool writes next to it, or by its tensors' names and types, whichever of them it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.native.weight_files import StoredTensor

_ENTRIES = ("quantization_config", "compression_config", "quantization")
"""Entries of config.json: transformers' own, an old one of compressed-tensors, and MLX's."""
_FILES = {"hf_quant_config.json": "modelopt", "quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}
"""Files that a tool writes next to the weights, and its name: NVIDIA's, AutoGPTQ's and AutoAWQ's."""
_METHODS = {"awq": "AWQ", "gptq": "GPTQ", "fp8": "FP8", "fbgemm_fp8": "FP8", "hqq": "HQQ", "mxfp4": "MXFP4"}
"""transformers' names of methods to those that people use; the others are the same."""
_SIGNS = (
    (".quant_state.bitsandbytes__nf4", "bitsandbytes, 4 bits"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes, 4 bits"),
    (".absmax", "bitsandbytes, 4 bits"),
    (".SCB", "bitsandbytes, 8 bits"),
    (".g_idx", "GPTQ"),
    (".qweight", "AWQ or GPTQ"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_2", "modelopt, NVFP4"),
    ("_quantizer._amax", "modelopt"),
    (".weight_scale_inv", "FP8"),
    ("._weight_qdata", "torchao"),
    (".scales", "MLX"),
)
"""Ends of tensors' names, and what writes them; the first that is found counts."""
_PLAIN = {"F64", "F32", "F16", "BF16"}


def refuse_quantized(folder: str | Path, config: Mapping[str, Any], tensors: Iterable[StoredTensor]) -> None:
    """Reject a checkpoint with quantized weights.

    Args:
        folder: the checkpoint; a name on the hub is judged by its config alone.
        config: content of its config.json.
        tensors: its tensors.

    Raises:
        UsageError: its weights are quantized, or its config says so; the message names the method.
    """
    claims, found = dict(_claims(Path(folder), config)), _find_sign(list(tensors))
    if not claims and found is None:
        return
    method = next(iter(claims.values()), found)
    remedy = "pass the checkpoint that it was quantized from, or a dequantized one"
    if claims and found is None:
        remedy += f"; if its weights are no longer quantized, remove {next(iter(claims))}"
    raise UsageError(f"{folder}: its weights are quantized ({method}), and export quantizes by itself; {remedy}")


def _claims(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what says that the weights are quantized, and the method."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for entry in _ENTRIES:
            if settings := part.get(entry):
                yield f"{entry} from its config.json", _describe(settings, "MLX" if entry == "quantization" else "")
    for name, tool in _FILES.items():
        if (folder / name).is_file():
            settings = read_json(folder / name)
            nested = settings.get("quantization")
            entries = nested if isinstance(nested, dict) and nested else settings
            if tool != "modelopt" or entries.get("quant_algo"):
                yield name, _describe(entries, tool)


def _describe(settings: Any, tool: str) -> str:
    entries = settings if isinstance(settings, dict) else {}
    method = str(entries.get("quant_method") or tool or "of an unnamed method")
    parts = [_METHODS.get(method, method)]
    if kind := entries.get("quant_algo"):
        parts.append(str(kind))
    four, eight = (entries.get(f"load_in_{bits}bit") or entries.get(f"_load_in_{bits}bit") for bits in (4, 8))
    if bits := entries.get("bits") or entries.get("w_bit") or (4 if four else 8 if eight else None):
        parts.append(f"{bits} bits")
    return ", ".join(parts)


def _find_sign(tensors: list[StoredTensor]) -> str | None:
    """Return what tensors' names and types tell of a method; None if the weights are plain numbers."""
    for sign, method in _SIGNS:
        if any(tensor.name.endswith(sign) for tensor in tensors):
            return method
    for tensor in tensors:
        if tensor.name.endswith(".weight") and tensor.dtype not in _PLAIN:
            kind = "FP8" if tensor.dtype.startswith("F8") else tensor.dtype
            return f"{kind}, see {tensor.name}"
    return None
