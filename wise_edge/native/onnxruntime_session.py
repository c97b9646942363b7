"""The one place that opens ONNX Runtime sessions: for the runtimes, the export's comparisons and `wise-edge doctor`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from wise_edge.bundle.devices import Capability, format_capability
from wise_edge.errors import BundleError, DeviceError, WiseEdgeError, first_line
from wise_edge.extras import require
from wise_edge.native.gpu_code import list_gpu_code
from wise_edge.native.memory import find_shortage

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def quiet_options(onnxruntime: ModuleType) -> Any:
    """Return default session options that log nothing: errors are raised, and a second report would be noise."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def _load_cuda(onnxruntime: ModuleType) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where ONNX Runtime itself does not look.

    It prints what it lacks, although the session may find that in the system; and what the session then lacks is logged
    besides being told by its providers.
    """
    onnxruntime.set_default_logger_severity(4)
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def find_gpu_lack(gpu: Capability) -> str | None:
    """Return why the installed onnxruntime-gpu cannot run on a GPU; None if it can, or if nothing is known of it.

    A session starts on a GPU for which the package holds no code, and fails when it runs.

    Args:
        gpu: the GPU's compute capability.
    """
    library = Path(require("onnxruntime", "gpu").__file__ or "").parent / "capi/libonnxruntime_providers_cuda.so"
    code = list_gpu_code(library) if library.is_file() else ()
    if not code or any(one.runs_on(gpu) for one in code):
        return None
    held = ", ".join(map(format_capability, sorted({one.capability for one in code})))
    return (
        f"this onnxruntime-gpu holds code for compute capability {held}, none for {format_capability(gpu)}; use "
        "llama.cpp or TensorRT on this GPU"
    )


class OnnxSession:
    """An ONNX file, loaded and ready to run.

    Args:
        file: the ONNX file.
        provider: ONNX Runtime's execution provider.
        options: makes the session options from the onnxruntime module.

    Attributes:
        outputs: names of the graph's outputs, in order.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        DeviceError: the provider does not start here (ONNX Runtime itself would silently use the CPU), or memory ran
            out.
        BundleError: the file cannot be loaded.
    """

    def __init__(self, file: Path, provider: str = CPU, options: Callable[[ModuleType], Any] = quiet_options) -> None:
        onnxruntime = require("onnxruntime", "gpu" if provider == CUDA else "onnx")
        self._file = file
        if provider not in onnxruntime.get_available_providers():
            raise DeviceError(f"this onnxruntime has no {provider}; run: pip install 'wise-edge[gpu]'")
        if provider == CUDA:
            _load_cuda(onnxruntime)
        try:
            self._session = onnxruntime.InferenceSession(
                str(file),
                options(onnxruntime),
                providers=[provider],
                enable_fallback=0,  # which prints to stdout
            )
            self.outputs = [output.name for output in self._session.get_outputs()]
            self._shapes = {given.name: given.shape for given in self._session.get_inputs()}
        except Exception as error:  # its classes derive from Exception itself, one a status code
            if (shortage := find_shortage(file, first_line(error))) is not None:
                raise shortage from error
            raise BundleError(f"{file} cannot be loaded: {first_line(error)}; export the bundle again") from error
        if (first := self._session.get_providers()[0]) != provider:
            raise DeviceError(
                f"{provider} does not start here and {first} would run instead; it needs NVIDIA's driver, CUDA and "
                "cuDNN; for the last two run: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )

    def check_outputs(self, names: Iterable[str]) -> None:
        """Raise `BundleError` if the graph lacks an output."""
        if missing := sorted({*names}.difference(self.outputs)):
            raise BundleError(f"{self._file} lacks the output {missing[0]}; export the bundle again")

    def largest(self, name: str, axis: int) -> int | None:
        """Return the size of an input along an axis; None if it varies."""
        size = self._shapes[name][axis]
        return size if isinstance(size, int) else None

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once.

        Raises:
            WiseEdgeError: an array is missing or of the wrong shape or type, or an operator failed.
        """
        try:
            values = self._session.run(self.outputs, dict(arrays))
        except Exception as error:
            raise WiseEdgeError(f"{self._file} failed: {first_line(error)}") from error
        return dict(zip(self.outputs, values, strict=True))
