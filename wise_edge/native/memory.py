"""Recognizing that memory ran out when a file cannot be loaded: runtimes raise one class for all reasons."""

from __future__ import annotations

from pathlib import Path

from wise_edge.errors import DeviceError

_SIGNS = ("bad_alloc", "insufficient memory", "failed to allocate", "out of memory", "cannot allocate memory")


def find_shortage(file: Path, reason: str) -> DeviceError | None:
    """Return the error to raise if a runtime's message, `reason`, says that memory ran out; None otherwise."""
    if not any(sign in reason.lower() for sign in _SIGNS):
        return None
    return DeviceError(
        f"{file} does not fit into free memory ({reason}); close other programs, or export smaller "
        "weights (--quant Q4_K_M for GGUF, --onnx-precision int4 for ONNX)"
    )
