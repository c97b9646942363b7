"""ONNX to engine, with TensorRT (on the target GPU) or TensorRT for RTX (on any machine, for several GPUs at once).

Networks are strongly typed: the ONNX file alone decides the precision. The two packages share this interface; features
of only one of them are looked up by name.

Reference: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html and
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from wise_edge.bundle.devices import EXTRAS, TENSORRT_RTX, GpuKind, check_types, format_capability
from wise_edge.bundle.engines import ArraySpec, ShapeRange, Sidecar, format_capabilities
from wise_edge.errors import BundleError, DeviceError, UsageError, WiseEdgeError
from wise_edge.export.to_tensorrt.progress import BuildProgress, make_monitor
from wise_edge.extras import require
from wise_edge.files.hashing import hash_file
from wise_edge.files.writing import replacing
from wise_edge.native.tensorrt_log import make_log

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bf16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FP8": "fp8",
    "INT4": "int4",
    "FP4": "fp4",
    "E8M0": "fp4",  # the scales of four-bit floats
}
"""The packages' names of types -> ours."""


@dataclass(frozen=True)
class EngineRequest:
    """An engine to build.

    Attributes:
        graph: role of the graph in its bundle.
        onnx: the graph's file.
        source_sha256: its hash, for the sidecar.
        ranges: for each input of dynamic shape, the shapes to support.
        targets: kinds of GPU with one builder; more than one only for TensorRT for RTX.
        timing_cache: file of TensorRT's timings, read and written; None disables it.
    """

    graph: str
    onnx: Path
    source_sha256: str
    ranges: Mapping[str, ShapeRange]
    targets: tuple[GpuKind, ...]
    timing_cache: Path | None = None


def build_engine(request: EngineRequest, file: Path, progress: BuildProgress) -> Sidecar:
    """Build an engine and write it with its sidecar, the latter last.

    Args:
        request: what to build.
        file: the engine, replaced if it exists; its sidecar's name has ".json" appended.
        progress: called with the share that is done, 0 to 1.

    Raises:
        UsageError: the targets do not share a builder, or the shapes do not fit the graph or each other.
        BundleError: the graph is missing, cannot be read or uses operators that the builder lacks.
        DeviceError: a target lacks a number type of the graph, or the builder does not know the target.
        MissingExtraError: the builder is not installed.
        WiseEdgeError: the build failed.
    """
    builder = _check_targets(request.targets)
    trt = require(builder, EXTRAS[builder])
    log = make_log(trt)
    network = _Network(trt, log, request.onnx)
    check_types(network.types(), request.targets, str(request.onnx))
    network.check_ranges(request.ranges)
    config = network.builder.create_builder_config()
    _add_profile(network, config, request.ranges)
    if builder == TENSORRT_RTX:
        _add_capabilities(trt, config, request.targets)
    else:
        _load_timing_cache(config, request.timing_cache)
    monitor = make_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    with replacing(file) as fresh:
        _serialize(trt, network, config, fresh, monitor)
        sidecar = Sidecar(
            graph=request.graph,
            source_sha256=request.source_sha256,
            builder=builder,
            builder_version=str(trt.__version__),
            capabilities=format_capabilities(request.targets),
            types=tuple(sorted(network.types())),
            inputs=network.inputs(),
            outputs=network.outputs(),
            ranges=network.all_ranges(request.ranges),
            bytes=fresh.stat().st_size,
            sha256=hash_file(fresh),
        )
    if request.timing_cache is not None and builder != TENSORRT_RTX:
        _save_timing_cache(config, request.timing_cache)
    with replacing(file.with_name(f"{file.name}.json")) as fresh:
        fresh.write_text(sidecar.to_json(), encoding="utf-8")
    return sidecar


def _check_targets(targets: Sequence[GpuKind]) -> str:
    builders = {target.builder for target in targets}
    if len(builders) != 1 or (len(targets) > 1 and builders != {TENSORRT_RTX}):
        raise UsageError(
            f"no engine serves {' and '.join(target.name for target in targets)} at once; build one for each"
        )
    return builders.pop()


class _Network:
    """A parsed graph."""

    def __init__(self, trt: ModuleType, log: Any, file: Path) -> None:
        if not file.is_file():
            raise BundleError(f"{file} is missing; export the bundle again")
        self._trt = trt
        self._file = file
        self.log = log
        self.builder = trt.Builder(log)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parser = trt.OnnxParser(self.network, log)  # kept alive: the network uses its copy of the weights
        if not self._parser.parse_from_file(str(file)):
            raise BundleError(self._explain())

    def _explain(self) -> str:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        unknown = [error.node_operator() for error in errors if "lugin" in error.desc() and error.node_operator()]
        if unknown:
            return f"{self._file} uses the operator {unknown[0]}, which {self._trt.__name__} lacks"
        reason = errors[0].desc() if errors else self.log.first
        return f"{self._file} cannot be read by {self._trt.__name__}: {' '.join(reason.split())}"

    def _tensors(self) -> tuple[list[Any], list[Any]]:
        network = self.network
        return (
            [network.get_input(index) for index in range(network.num_inputs)],
            [network.get_output(index) for index in range(network.num_outputs)],
        )

    def inputs(self) -> tuple[ArraySpec, ...]:
        return tuple(_describe(tensor) for tensor in self._tensors()[0])

    def outputs(self) -> tuple[ArraySpec, ...]:
        return tuple(_describe(tensor) for tensor in self._tensors()[1])

    def types(self) -> set[str]:
        """Return the number types of all tensors in the network."""
        network = self.network
        layers = (network.get_layer(index) for index in range(network.num_layers))
        tensors = [layer.get_output(index) for layer in layers for index in range(layer.num_outputs)]
        return {_type(tensor) for tensor in (*self._tensors()[0], *tensors) if tensor is not None}

    def all_ranges(self, ranges: Mapping[str, ShapeRange]) -> dict[str, ShapeRange]:
        """Return the ranges of all inputs, including those of fixed shape."""
        fixed = (spec for spec in self.inputs() if spec.name not in ranges)
        return {spec.name: ShapeRange(*[spec.shape] * 3) for spec in fixed} | dict(ranges)

    def check_ranges(self, ranges: Mapping[str, ShapeRange]) -> None:
        """Reject shapes that do not fit the inputs or each other: the builder accepts them, and the engine fails."""
        varying = {spec.name for spec in self.inputs() if -1 in spec.shape}
        if missing := sorted(varying - set(ranges)):
            raise UsageError(
                f"{self._file}: the input {missing[0]} has a dynamic shape, but no range of shapes is given"
            )
        if unknown := sorted(set(ranges) - varying):
            raise UsageError(f"{self._file} has no input {unknown[0]} of dynamic shape, but a range is given for it")
        sizes: dict[str, tuple[int, ...]] = {}
        for tensor in self._tensors()[0]:
            if tensor.name in ranges:
                self._check_range(tensor, ranges[tensor.name], sizes)

    def _check_range(self, tensor: Any, given: ShapeRange, sizes: dict[str, tuple[int, ...]]) -> None:
        shape = tuple(tensor.shape)
        bounds = (given.smallest, given.typical, given.largest)
        what = f"{self._file}: the range of shapes of {tensor.name}"
        if any(len(bound) != len(shape) for bound in bounds):
            raise UsageError(f"{what} must have {len(shape)} axes")
        for axis, (size, *three) in enumerate(zip(shape, *bounds, strict=True)):
            if size >= 0 and set(three) != {size}:
                raise UsageError(f"{what} must be {size} along axis {axis}, it is {three[0]} to {three[2]}")
            name = tensor.get_dimension_name(axis) if size < 0 else None
            if name and sizes.setdefault(name, tuple(three)) != tuple(three):
                raise UsageError(f"{what} differs along axis {axis} ({name}) from that of another input")


def _describe(tensor: Any) -> ArraySpec:
    return ArraySpec(tensor.name, _type(tensor), tuple(tensor.shape))


def _type(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return _TYPES.get(name, name.lower())


def _add_profile(network: _Network, config: Any, ranges: Mapping[str, ShapeRange]) -> None:
    if not ranges:
        return
    profile = network.builder.create_optimization_profile()
    for name, given in ranges.items():
        profile.set_shape(name, given.smallest, given.typical, given.largest)
    if config.add_optimization_profile(profile) < 0:
        raise UsageError(f"TensorRT rejects the shapes {dict(ranges)}: {network.log.first}")


def _add_capabilities(trt: ModuleType, config: Any, targets: Sequence[GpuKind]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        name = f"SM{target.capability[0]}{target.capability[1]}"
        capability = getattr(trt.ComputeCapability, name, None)
        if capability is None:
            raise DeviceError(
                f"TensorRT for RTX {trt.__version__} does not know {target.name} (compute capability "
                f"{format_capability(target.capability)}); install a newer one: pip install -U 'wise-edge[rtx]'"
            )
        config.set_compute_capability(capability, index)


def _serialize(trt: ModuleType, network: _Network, config: Any, file: Path, monitor: Any) -> None:
    """Build, and stream the engine to the file if the version supports it, which needs half the memory."""
    with file.open("wb") as stream:
        to_stream: Callable[..., bool] | None = getattr(network.builder, "build_serialized_network_to_stream", None)
        if to_stream is not None:
            done = to_stream(network.network, config, _make_writer(trt, stream))
        else:
            engine = network.builder.build_serialized_network(network.network, config)
            done = engine is not None
            if done:
                stream.write(memoryview(engine))
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if not done:
        raise WiseEdgeError(f"{trt.__name__} {trt.__version__} built no engine: {network.log.first}")


def _make_writer(trt: ModuleType, stream: Any) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc, name-defined]
        def write(self, data: bytes) -> int:
            return int(stream.write(data))

    return Writer()


def _load_timing_cache(config: Any, file: Path | None) -> None:
    if file is not None:
        data = file.read_bytes() if file.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(data), ignore_mismatch=False)


def _save_timing_cache(config: Any, file: Path) -> None:
    with suppress(OSError, WiseEdgeError):  # another build may write it, and it only saves time
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            fresh.write_bytes(memoryview(config.get_timing_cache().serialize()))
