"""llama-cpp-python: importing it, checking its version, and turning its log into messages of ours.

The structures of its low-level interface mirror C structures that change between versions, so only tested versions are
accepted.
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.native.memory import find_shortage

TESTED_VERSIONS = ("0.3.36",)
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR


def require_llama() -> ModuleType:
    """Import `llama_cpp.llama_cpp`, with its log silenced.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        DeviceError: its version is untested; a different layout of the structures would crash the process.
    """
    require("llama_cpp", "llama")
    installed = version("llama-cpp-python")
    if installed not in TESTED_VERSIONS:
        raise DeviceError(
            f"llama-cpp-python {installed} is untested with this wise-edge; run: "
            f"pip install llama-cpp-python=={TESTED_VERSIONS[-1]}"
        )
    low_level = require("llama_cpp.llama_cpp", "llama")
    _LOG.install(low_level)
    return low_level


def require_mtmd() -> ModuleType:
    """Import `llama_cpp.mtmd_cpp`, llama.cpp's interface to vision towers; raises as `require_llama`."""
    require_llama()
    return require("llama_cpp.mtmd_cpp", "llama")


def offloads_to_gpu() -> bool:
    """Return whether llama-cpp-python has a tested version and was built for a GPU."""
    try:
        return bool(require_llama().llama_supports_gpu_offload())
    except DeviceError:
        return False


def explain_failure(what: str) -> str:
    """Return a message that ends with llama.cpp's first logged error, and forget that error."""
    return _LOG.explain(what)


def loading_error(file: Path, what: str) -> WiseEdgeError:
    """Return the error to raise when a file cannot be loaded; a `DeviceError` if memory ran out.

    Args:
        file: the file.
        what: what failed, for the message.
    """
    reason = explain_failure(what)
    return find_shortage(file, reason) or WiseEdgeError(reason)


class _Log:
    """Keeps llama.cpp quiet, and remembers its first error since the last message."""

    def __init__(self) -> None:
        self._callback: Any = None
        self._error = ""

    def install(self, low_level: ModuleType) -> None:
        if self._callback is None:
            self._callback = low_level.llama_log_callback(self._receive)  # kept: C holds no reference
            low_level.llama_log_set(self._callback, ctypes.c_void_p(0))
            mtmd = require("llama_cpp.mtmd_cpp", "llama")
            mtmd.mtmd_log_set(self._callback, ctypes.c_void_p(0))
            mtmd.mtmd_helper_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR_LEVEL and not self._error:
            self._error = text.decode("utf-8", "replace").strip()

    def explain(self, what: str) -> str:
        error, self._error = self._error, ""
        return f"{what}: {error or 'llama.cpp reported no reason'}"


_LOG = _Log()
