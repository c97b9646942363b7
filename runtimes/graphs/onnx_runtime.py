"""A graph on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from wise_edge.native.onnxruntime_session import CPU, OnnxSession, quiet_options


class OnnxGraph(OnnxSession):
    """An ONNX file with the session options that suit a bundle; see `OnnxSession`.

    Args:
        file: the ONNX file.
        provider: ONNX Runtime's execution provider.
        threads: CPU threads of one operator; None starts one for each physical core.
    """

    def __init__(self, file: Path, provider: str = CPU, threads: int | None = None) -> None:
        super().__init__(file, provider, lambda onnxruntime: _options(onnxruntime, threads))


def _options(onnxruntime: ModuleType, threads: int | None) -> Any:
    options = quiet_options(onnxruntime)
    # Fusions beyond the basic level take longer than they save on graphs of this size (benchmarks/cold_start.py).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A bundle's graphs run in turn: threads of one that spin while they wait take the cores from the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
