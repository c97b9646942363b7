"""Writing a GGUF file one tensor at a time, so that memory holds only one tensor of any model.

The `gguf` package defines the layout (header, metadata, tensor table, data in the table's order):
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from wise_edge.errors import UsageError
from wise_edge.export.progress import Progress
from wise_edge.export.source.tensors import CheckpointTensors

Change = Callable[[Tensor], Tensor]
"""Makes a tensor of a GGUF file of one of the checkpoint; works without values, on the "meta" device, too."""
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Entry:
    """One tensor of a GGUF file.

    Attributes:
        name: its name in the file.
        source: its name in the checkpoint.
        type: one of `precisions.FILE_TYPES`.
        change: what becomes of the checkpoint's tensor, for example a part of it; None keeps it.
    """

    name: str
    source: str
    type: str
    change: Change | None = None

    def read(self, tensors: CheckpointTensors) -> Tensor:
        """Return the values, in the checkpoint's type unless they change."""
        whole = tensors.read(self.source)
        return whole if self.change is None else self.change(whole)

    def shape(self, tensors: CheckpointTensors) -> tuple[int, ...]:
        """Return the shape, outermost dimension first, without reading the values."""
        whole = torch.empty(tensors.shape(self.source), device="meta")
        return tuple((whole if self.change is None else self.change(whole)).shape)


def write_gguf(
    file: Path,
    architecture: str,
    describe: Callable[[Any], None],
    entries: Sequence[Entry],
    tensors: CheckpointTensors,
    progress: Progress,
) -> None:
    """Write a GGUF file.

    Args:
        file: a temporary file, which the caller renames.
        architecture: value of `general.architecture`.
        describe: adds the metadata to a `gguf.GGUFWriter`.
        entries: the tensors, in the file's order.
        tensors: the checkpoint with their values.
        progress: called with the share of the bytes written.

    Raises:
        UsageError: a tensor holds values that are not finite, or beyond the file's type; the message names it.
    """
    writer: Any = gguf.GGUFWriter(file, architecture)
    try:
        describe(writer)
        sizes = []
        for entry in entries:
            shape = entry.shape(tensors)
            sizes.append(math.prod(shape) * _BYTES[entry.type])
            kind = gguf.GGMLQuantizationType[entry.type]
            writer.add_tensor_info(entry.name, shape, None, sizes[-1], raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total, written = sum(sizes), 0
        for entry, size in zip(entries, sizes, strict=True):
            writer.write_tensor_data(_convert(entry, tensors))
            written += size
            progress(f"writing {file.name}", written / total)
        writer.flush()
        for stream in writer.fout:
            os.fsync(stream.fileno())
    finally:
        if writer.fout is not None:
            writer.close()


def _convert(entry: Entry, tensors: CheckpointTensors) -> Any:
    """Return the values as an array of the entry's type, BF16 as int16 of the same bits."""
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = entry.read(tensors)
    if not values.dtype.is_floating_point or values.element_size() < 2:
        raise UsageError(
            f"{tensors.folder}: {entry.source} is {values.dtype}; export a checkpoint that is not quantized"
        )
    converted = values.to(kinds[entry.type]).contiguous()
    low, high = torch.aminmax(converted)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise UsageError(_not_finite(entry, values, tensors.folder))
    return (converted.view(torch.int16) if entry.type == "BF16" else converted).numpy()


def _not_finite(entry: Entry, values: Tensor, folder: Path) -> str:
    if torch.isfinite(values).all():
        return f"{folder}: {entry.source} has values beyond {entry.type}; export it with --quant BF16 or F32"
    return f"{folder}: {entry.source} holds values that are not finite; train or copy the checkpoint again"
