"""Small modules as ONNX graphs, which the tests of rounding start from."""

from __future__ import annotations

from pathlib import Path

import torch

from wise_edge.export.to_onnx.trace import export_onnx


def export_rows(module: torch.nn.Module, folder: Path, rows: int) -> Path:
    """Export a module from rows of 64 numbers, "x", to "logits" and "hidden"; return the file."""
    file = folder / "float.onnx"
    export_onnx(module.eval(), (torch.zeros(rows, 64),), ["x"], ["logits", "hidden"], file)
    return file
