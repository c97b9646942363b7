"""Quantizing a GGUF file with llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.export.precisions import NEED_IMPORTANCE
from wise_edge.export.to_gguf.text import file_type_number
from wise_edge.native.llama_library import explain_failure, require_llama

Importance = Mapping[str, npt.NDArray[np.float32]]
"""For each tensor of a GGUF file float32 [columns]: the mean square of each column's inputs."""


def quantize_gguf(source: Path, target: Path, kind: str, importance: Importance | None = None) -> None:
    """Write a quantized copy of a GGUF file; for some types llama.cpp keeps single tensors in larger ones.

    Rows that 256 does not divide cannot hold a K-quant: llama.cpp then uses another type of about the same size
    (see `tensor_types`).

    Args:
        source: of type F32, F16 or BF16.
        target: a temporary file, which the caller renames.
        kind: one of `QUANTIZATION_TYPES`.
        importance: see `Importance`; None treats all columns alike.

    Raises:
        UsageError: the type needs an importance matrix and there is none.
        WiseEdgeError: llama.cpp failed.
        MissingExtraError: llama-cpp-python is not installed.
    """
    if kind in NEED_IMPORTANCE and importance is None:
        raise UsageError(f"{kind} needs an importance matrix; omit --no-importance")
    llama = require_llama()
    params = llama.llama_model_quantize_default_params()
    params.ftype = file_type_number(kind)
    params.nthread = os.cpu_count() or 1
    held = _importance_array(importance or {})
    if importance is not None:
        params.imatrix = held
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise WiseEdgeError(explain_failure(f"llama.cpp cannot quantize {source.name} to {kind}"))


def _importance_array(importance: Importance) -> ctypes.Array[ctypes.Structure]:
    """Return llama.cpp's array of names and values, ended by an entry without a name."""
    llama = require_llama()
    entries = (llama.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        column = np.ascontiguousarray(values, np.float32)
        entry.name = name.encode()
        entry.data = (ctypes.c_float * len(column))(*column.tolist())
        entry.size = len(column)
    return entries  # the structures keep their buffers alive


def tensor_types(file: Path) -> dict[str, int]:
    """Return how many tensors of two or more dimensions a GGUF file has of each type, the most frequent first."""
    reader = gguf.GGUFReader(file)
    names = [tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1]
    return {name: names.count(name) for name in sorted(set(names), key=lambda name: (-names.count(name), name))}
