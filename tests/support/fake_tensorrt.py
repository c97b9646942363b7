"""Stand-ins for the CUDA runtime (a C library, loaded as the real one is) and for TensorRT's runtime interface.

An engine of the stand-in is run by ONNX Runtime from the graph it was built from. Like the real one it reads and writes
memory by address and wants every shape and address set before it runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

SOURCE = Path(__file__).with_name("fake_cudart.c")


def compile_cudart(folder: Path) -> Path:
    """Compile the stand-in for libcudart."""
    library = folder / "libcudart.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o", library, SOURCE], check=True)
    return library


class Counters:
    """What the stand-in for CUDA counts, and what it is to do."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    def get(self, name: str) -> int:
        return ctypes.c_long.in_dll(self.library, f"fake_{name}").value

    def set(self, name: str, value: int) -> None:
        kind = ctypes.c_int if name in ("capability", "devices") else ctypes.c_long
        kind.in_dll(self.library, f"fake_{name}").value = value

    @property
    def blocks(self) -> int:
        """Blocks of memory that were not given back."""
        return int(self.library.fake_blocks())

    @property
    def streams(self) -> int:
        return int(self.library.fake_streams())

    def holds(self, address: int, size: int) -> bool:
        return bool(self.library.fake_holds(ctypes.c_void_p(address), ctypes.c_size_t(size)))


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = 1, 0, 2


def make_package(name: str, version: str, graphs: Mapping[str, Path], counters: Counters) -> ModuleType:
    """Return a package that runs engines.

    Args:
        name: of the package.
        version: likewise.
        graphs: for the sha256 of each engine it knows, the ONNX graph.
        counters: of the CUDA runtime.
    """

    class Runtime:
        def __init__(self, log: Any) -> None:
            self._log = log

        def deserialize_cuda_engine(self, data: Any) -> Engine | None:
            digest = hashlib.sha256(bytes(data)).hexdigest()
            if digest not in graphs:
                self._log.log(ILogger.WARNING, "reading an engine")
                self._log.log(ILogger.ERROR, "Serialization assertion\nstdVersionRead == kSERIALIZATION_VERSION failed")
                return None
            return Engine(graphs[digest], self._log, counters)

    package = ModuleType(name)
    package.__spec__ = ModuleSpec(name, None)
    package.__dict__.update(__version__=version, ILogger=ILogger, Runtime=Runtime)
    return package


class Engine:
    def __init__(self, graph: Path, log: Any, counters: Counters) -> None:
        self.graph, self.log, self.counters = graph, log, counters

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, config: RuntimeConfig | None = None) -> Context:
        return Context(self, config.cache if config else None)


class RuntimeCache:
    """Kernels: one byte for each that was compiled."""

    rejects = False

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, data: bytes) -> bool:
        if self.rejects:
            return False
        self.kernels = bytes(data)
        return True

    def serialize(self) -> bytes:
        return self.kernels


class RuntimeConfig:
    cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Context:
    fails = False

    def __init__(self, engine: Engine, cache: RuntimeCache | None) -> None:
        self._engine = engine
        self._cache = cache
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(engine.graph), options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: value for value in self._session.get_outputs()}
        self._shapes = {name: tuple(value.shape) for name, value in self._inputs.items()}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self._inputs[name].shape
        fits = len(shape) == len(fixed) and all(isinstance(a, str) or a == b for a, b in zip(fixed, shape, strict=True))
        if fits:
            self._shapes[name] = shape
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address, f"{name} has no address"
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if any(isinstance(size, str) for size in shape)]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = {}
        for given, value in self._inputs.items():
            for axis, size in zip(value.shape, self._shapes[given], strict=True):
                if isinstance(axis, str):
                    assert sizes.setdefault(axis, size) == size, f"{axis} is {sizes[axis]} and {size}"
        shape = self._outputs[name].shape
        return tuple(eval(axis, {}, sizes) if isinstance(axis, str) else axis for axis in shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream
        if self.fails:
            self._engine.log.log(ILogger.ERROR, "Error Code 1: Cask (no kernel)")
            return False
        if self._cache and not self._cache.kernels:
            self._cache.kernels = b"k"
        feeds = {
            name: self._view(name, self._shapes[name], np.int64 if "int64" in value.type else np.float32)
            for name, value in self._inputs.items()
        }
        for name, result in zip(self._outputs, self._session.run(list(self._outputs), feeds), strict=True):
            self._view(name, self.get_tensor_shape(name), result.dtype)[...] = result
        return True

    def _view(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._addresses[name]
        assert self._engine.counters.holds(address, size), f"{name} lies outside of the GPU's memory"
        return np.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype).reshape(shape)
