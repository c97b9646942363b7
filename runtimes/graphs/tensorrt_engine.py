"""A graph on TensorRT or TensorRT for RTX: an engine of a bundle, run through the CUDA runtime alone.

Keys and values and an image's features stay on the GPU: one run passes them to the next by address. Host memory is
pinned, device memory is allocated once. **No engine was run yet: there was no GPU at hand.** The tests run this code
against stand-ins for the CUDA runtime and the packages' runtime interface; `make test-gpu` runs it on the real ones.

CUDA graphs are not used: shapes change with every decoding step, since keys and values grow, and the other graphs run
once for each image or query.

Reference: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.devices import EXTRAS, TENSORRT_RTX, find_gpu_kind
from wise_edge.bundle.engines import ArraySpec, Sidecar, source_hash
from wise_edge.bundle.roles import MASK_GRAPHS, engine_role
from wise_edge.bundle.store import Bundle
from wise_edge.errors import BundleError, DeviceError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.files.cache import cache_folder
from wise_edge.files.writing import replacing
from wise_edge.native.cuda import open_cuda
from wise_edge.native.tensorrt_log import make_log
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.graphs.device_memory import DeviceArray, DevicePool, PinnedBuffer
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.policy.graph import GraphPolicy

_RESIDENT = {"policy.decoder": ("present_",), "sam.encoder": ("",), "sam.memory_attention": ("",)}
"""Outputs that stay on the GPU, by the beginnings of their names: keys and values, an image's features, and these as
the memory of objects lets them be seen."""


def open_policy(bundle: Bundle, row: Backend, *, pixels: int | None = None, **_: Any) -> GraphPolicy:
    """Open a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return GraphPolicy.of_bundle(row.name, bundle, pixels, _engine_opener(bundle))


def open_mask(bundle: Bundle, row: Backend, **_: Any) -> GraphMask:
    """Open a bundle's segmenter; see `wise_edge.runtimes.backends.Support`."""
    opener = _engine_opener(bundle)
    encoder, decoder = map(opener, MASK_GRAPHS)
    return GraphMask(row.name, bundle.manifest.sam, encoder, decoder, opener, on_gpu=True)


def _engine_opener(bundle: Bundle) -> Callable[[str], TensorRtGraph]:
    runtime = EngineRuntime(bundle)
    return lambda graph: runtime.open(graph, _RESIDENT.get(graph, ()))


class EngineRuntime:
    """TensorRT for one part of a bundle, on its own stream, so that policy and segmenter can run at the same time.

    Args:
        bundle: has engines for the GPU of this machine.

    Raises:
        DeviceError: there is no GPU, or no engines are built for it.
        MissingExtraError: the package that the engines need is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.cuda = open_cuda()
        self._capability = self.cuda.capability
        self._target = find_gpu_kind(self._capability)
        self.trt = require(self._target.builder, EXTRAS[self._target.builder])
        self.log = make_log(self.trt)
        self._runtime = self.trt.Runtime(self.log)
        self.stream = self.cuda.create_stream()
        self.pool = DevicePool(self.cuda)
        weakref.finalize(self, self.cuda.destroy_stream, self.stream).atexit = False

    def open(self, graph: str, resident: tuple[str, ...] = ()) -> TensorRtGraph:
        """Load the engine of a graph.

        Args:
            graph: its role in the bundle.
            resident: beginnings of the names of outputs that stay on the GPU.

        Raises:
            DeviceError: the engine was built for another GPU or by another version, or does not load.
            BundleError: it or its sidecar does not belong to this bundle.
        """
        role = engine_role(graph, self._target.engine_set)
        file = self._bundle.file(role)
        sidecar = Sidecar.read(self._bundle.file(f"{role}.json"))
        sidecar.check(file, self._target.builder, str(self.trt.__version__), self._capability)
        recorded = self._bundle.artifact(role).sha256
        if sidecar.sha256 != recorded or sidecar.source_sha256 != source_hash(self._bundle, graph):
            raise BundleError(f"{file} does not belong to this bundle; build it again: wise-edge build {file.parent}")
        return TensorRtGraph(self, self._load(file), file, sidecar, resident)

    def _load(self, file: Path) -> Any:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise DeviceError(f"{file} does not load: {self.log.first}; build it again: wise-edge build {file.parent}")
        return engine


class TensorRtGraph:
    """An engine, loaded and ready to run; only one thread at a time may use it.

    Args:
        runtime: the part's TensorRT.
        engine: `ICudaEngine`.
        file: its path, for messages.
        sidecar: its inputs and outputs.
        resident: beginnings of the names of outputs that stay on the GPU.
    """

    def __init__(
        self, runtime: EngineRuntime, engine: Any, file: Path, sidecar: Sidecar, resident: tuple[str, ...]
    ) -> None:
        self._runtime = runtime
        self._engine = engine  # kept alive: the context holds no reference
        self._file = file
        self._sidecar = sidecar
        self._resident = resident
        self._context = self._create_context()
        if self._context is None:
            raise DeviceError(f"{file} cannot run: {runtime.log.first}")
        self._pinned = {spec.name: PinnedBuffer(runtime.cuda) for spec in (*sidecar.inputs, *sidecar.outputs)}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Run the engine once and wait for it.

        Args:
            arrays: for each input a numpy array, or a `DeviceArray` of an earlier run.

        Returns:
            For each output a numpy array, or a `DeviceArray` if it stays on the GPU.

        Raises:
            WiseEdgeError: an array is missing, has the wrong type or shape, or the run failed.
        """
        # Keep arrays on the GPU alive until the run is done, so that their memory is not reused before.
        inputs = [self._enter(spec, arrays) for spec in self._sidecar.inputs]
        if unset := self._context.infer_shapes():
            raise self._failed(f"the shapes of {', '.join(unset)} do not fit the others")
        outputs = {spec.name: self._make_room(spec) for spec in self._sidecar.outputs}
        if not self._context.execute_async_v3(self._runtime.stream):
            raise self._failed(self._runtime.log.first)
        fetched = {name: self._fetch(name, array) for name, array in outputs.items() if not self._stays(name)}
        self._runtime.cuda.synchronize(self._runtime.stream)
        del inputs
        return outputs | {name: view.copy() for name, view in fetched.items()}

    def largest(self, name: str, axis: int) -> int | None:
        """Return the largest size of an input along an axis."""
        return self._sidecar.ranges[name].largest[axis]

    def _create_context(self) -> Any:
        """Return an execution context; for TensorRT for RTX with the kernels that earlier processes compiled.

        TensorRT for RTX compiles kernels on first use and rejects those of another GPU, driver or version
        (https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-runtime-cache.html).
        """
        if self._sidecar.builder != TENSORRT_RTX:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        kernels = config.create_runtime_cache()
        file = cache_folder() / f"kernels-{self._sidecar.sha256[:16]}.cache"
        held = file.stat().st_size if file.is_file() and kernels.deserialize(file.read_bytes()) else 0
        config.set_runtime_cache(kernels)
        weakref.finalize(self, _save_kernels, kernels, file, held)  # at the latest when the process ends
        return self._engine.create_execution_context(config)

    def _stays(self, name: str) -> bool:
        return name.startswith(self._resident) if self._resident else False

    def _enter(self, spec: ArraySpec, arrays: Mapping[str, Any]) -> DeviceArray:
        """Pass an input to the engine, through GPU memory if it comes from the host."""
        array = arrays.get(spec.name)
        if array is None:
            raise self._failed(f"the input {spec.name} is missing")
        self._check(spec, array)
        if -1 in spec.shape and not self._context.set_input_shape(spec.name, tuple(array.shape)):
            raise self._failed(self._runtime.log.first)
        held = array if isinstance(array, DeviceArray) else self._upload(spec.name, array)
        self._context.set_tensor_address(spec.name, held.address)
        return held

    def _check(self, spec: ArraySpec, array: Any) -> None:
        if array.dtype != np.dtype(spec.dtype):
            raise self._failed(f"the input {spec.name} is {array.dtype}, want {spec.dtype}")
        given = self._sidecar.ranges[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            least <= size <= most for least, size, most in zip(given.smallest, array.shape, given.largest, strict=True)
        )
        if not fits:
            raise self._failed(
                f"the input {spec.name} has shape {list(array.shape)}, the engine accepts {list(given.smallest)} to "
                f"{list(given.largest)}"
            )

    def _upload(self, name: str, array: npt.NDArray[Any]) -> DeviceArray:
        held = self._runtime.pool.take(array.shape, array.dtype)
        if array.nbytes:
            view = self._pinned[name].view(array.shape, array.dtype)
            view[...] = array
            self._runtime.cuda.copy_to_device(held.address, view.ctypes.data, array.nbytes, self._runtime.stream)
        return held

    def _make_room(self, spec: ArraySpec) -> DeviceArray:
        array = self._runtime.pool.take(tuple(self._context.get_tensor_shape(spec.name)), spec.dtype)
        self._context.set_tensor_address(spec.name, array.address)
        return array

    def _fetch(self, name: str, array: DeviceArray) -> npt.NDArray[Any]:
        view = self._pinned[name].view(array.shape, array.dtype)
        self._runtime.cuda.copy_to_host(view.ctypes.data, array.address, array.nbytes, self._runtime.stream)
        return view

    def _failed(self, reason: str) -> WiseEdgeError:
        return WiseEdgeError(f"{self._file} failed: {reason}")


def _save_kernels(kernels: Any, file: Path, held: int) -> None:
    """Keep compiled kernels for the next process if there are more than this one began with."""
    data = memoryview(kernels.serialize())
    if data.nbytes <= held:
        return
    with suppress(OSError, WiseEdgeError):  # if the disk is full or read-only, the next process compiles again
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            fresh.write_bytes(data)
