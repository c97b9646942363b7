"""A graph on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from wise_edge.errors import BundleError, DeviceError, WiseEdgeError, first_line
from wise_edge.extras import require
from wise_edge.native.memory import find_shortage

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class OnnxGraph:
    """An ONNX file, loaded and ready to run.

    Args:
        file: the ONNX file.
        provider: ONNX Runtime's execution provider.
        threads: CPU threads of one operator; None takes one a physical core.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        DeviceError: the provider does not start here; ONNX Runtime itself would go on with the CPU in silence.
            Or memory ran out.
        BundleError: the file cannot be loaded.
    """

    def __init__(self, file: Path, provider: str = CPU, threads: int | None = None) -> None:
        onnxruntime = require("onnxruntime", "gpu" if provider == CUDA else "onnx")
        self._file = file
        if provider not in onnxruntime.get_available_providers():
            raise DeviceError(f"this onnxruntime has no {provider}; run: pip install 'wise-edge[gpu]'")
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), _options(onnxruntime, threads), providers=[provider]
            )
        except Exception as error:  # its classes derive from Exception itself, one a status code
            if (shortage := find_shortage(file, first_line(error))) is not None:
                raise shortage from error
            raise BundleError(f"{file} cannot be loaded: {first_line(error)}; export the bundle again") from error
        if (first := self._session.get_providers()[0]) != provider:
            raise DeviceError(f"{provider} does not start here and {first} would run instead; check its libraries")

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once.

        Raises:
            WiseEdgeError: an array is missing or of the wrong shape or type, or an operator failed.
        """
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, dict(arrays))
        except Exception as error:
            raise WiseEdgeError(f"{self._file} failed: {first_line(error)}") from error
        return dict(zip(names, values, strict=True))


def _options(onnxruntime: Any, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    # Fusions beyond the basic level take longer than they save on graphs of this size (benchmarks/cold_start.py).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A bundle's graphs run in turn: threads of one that spin while they wait take the cores from the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised; a second report on stderr would be noise
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
