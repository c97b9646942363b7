"""The GPUs that engines are built for: the name of each, which package builds for it, and where.

`export`, `build`, `doctor` and the error messages share this table. Sources: https://developer.nvidia.com/cuda-gpus,
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html and
https://developer.nvidia.com/embedded/jetpack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wise_edge.errors import DeviceError, UsageError

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
"""Import names of the two packages that build and run engines."""
EXTRAS = {TENSORRT: "tensorrt", TENSORRT_RTX: "rtx"}
"""The extra of wise-edge that installs each."""
THIS = "this"
"""The name for the GPU of this machine."""

Capability = tuple[int, int]
"""Compute capability of a GPU, major and minor."""


@dataclass(frozen=True)
class GpuKind:
    """A kind of GPU.

    Attributes:
        name: its name for `--device`.
        description: the products.
        capability: compute capability.
        builder: `TENSORRT`, which builds on the device itself, or `TENSORRT_RTX`, which builds anywhere.
        jetpack: the JetPack release that installs the builder; empty if pip installs it.
    """

    name: str
    description: str
    capability: Capability
    builder: str
    jetpack: str = ""

    @property
    def builds_anywhere(self) -> bool:
        """Whether an engine can be built on a machine without this GPU."""
        return self.builder == TENSORRT_RTX

    @property
    def engine_set(self) -> str:
        """Name of the set of engines for it: all RTX GPUs share one set, every other kind has its own."""
        return "rtx" if self.builds_anywhere else self.name


GPU_KINDS = (
    GpuKind("orin", "Jetson Orin Nano, Orin NX, AGX Orin", (8, 7), TENSORRT, "6 or 7.2"),
    GpuKind("thor", "Jetson AGX Thor", (11, 0), TENSORRT, "7"),
    GpuKind("sm75", "GeForce RTX 20, Turing", (7, 5), TENSORRT_RTX),
    GpuKind("sm86", "GeForce RTX 30, RTX A2000 to A6000", (8, 6), TENSORRT_RTX),
    GpuKind("sm89", "GeForce RTX 40, RTX Ada, L4, L40", (8, 9), TENSORRT_RTX),
    GpuKind("sm120", "GeForce RTX 50, RTX PRO Blackwell", (12, 0), TENSORRT_RTX),
    GpuKind("sm121", "GB10, DGX Spark", (12, 1), TENSORRT_RTX),
    GpuKind("sm80", "A100, A30", (8, 0), TENSORRT),
    GpuKind("sm90", "H100, H200, GH200", (9, 0), TENSORRT),
    GpuKind("sm100", "B200, GB200", (10, 0), TENSORRT),
)
"""What engines are built for. Engines were built for the RTX kinds, but have run on none of these GPUs.

TensorRT for RTX 1.7 builds for sm80 too, but its support matrix does not list the GPUs. It knows neither Jetson.
"""
_ALIASES = {"sm87": "orin", "sm110": "thor"}

MIN_CAPABILITY: dict[str, Capability] = {
    "fp32": (8, 0),  # for complete graphs: TensorRT for RTX lacks float32 matrix products on Turing, nothing else
    "bf16": (8, 0),
    "int8": (8, 0),
    "int4": (8, 0),
    "fp8": (8, 9),
    "fp4": (10, 0),
}
"""The compute capability that a precision or a number type needs; types not listed run everywhere."""


def find_gpu_kind(capability: Capability) -> GpuKind:
    """Return the kind of GPU with a compute capability.

    Raises:
        DeviceError: engines are built for no such GPU.
    """
    for kind in GPU_KINDS:
        if kind.capability == capability:
            return kind
    raise DeviceError(
        f"no engine is built for compute capability {format_capability(capability)}; use --target gguf or onnx there"
    )


def parse_gpu_kinds(names: str, this: Capability | None = None) -> tuple[GpuKind, ...]:
    """Return the kinds of GPU that a list names.

    Args:
        names: separated by commas, with or without spaces; `THIS` stands for the GPU of this machine.
        this: compute capability of this machine's GPU; None without one.

    Raises:
        UsageError: a name is empty, unknown or repeated.
        DeviceError: `THIS` is asked for, and this machine has no GPU or one that no engines are built for.
    """
    by_name = {kind.name: kind for kind in GPU_KINDS}
    found: list[GpuKind] = []
    for given in names.split(","):
        name = _ALIASES.get(given.strip(), given.strip())
        if name == THIS and this is None:
            raise DeviceError(f"--device this: no NVIDIA GPU was found; name one of {', '.join(by_name)}")
        if name != THIS and name not in by_name:
            wrong = f"unknown device '{name}'" if name else "--device has an empty name"
            raise UsageError(f"{wrong}; choose {THIS}, {', '.join(by_name)}")
        kind = by_name[name] if name != THIS or this is None else find_gpu_kind(this)
        if kind in found:
            raise UsageError(f"--device names {kind.name} twice")
        found.append(kind)
    return tuple(found)


def check_types(types: Iterable[str], kinds: Sequence[GpuKind], what: str) -> None:
    """Reject number types that one of the GPUs cannot compute with, since they would fail the build for all of them.

    Args:
        types: names of types, some of which may be in `MIN_CAPABILITY`.
        kinds: the GPUs to build for.
        what: the file that uses the types, for the message.

    Raises:
        DeviceError: a GPU lacks a type.
    """
    for name in sorted(set(types) & set(MIN_CAPABILITY)):
        minimum = MIN_CAPABILITY[name]
        for kind in kinds:
            if kind.capability < minimum:
                raise DeviceError(
                    f"{what} computes with {name}, which {kind.name} (compute capability "
                    f"{format_capability(kind.capability)}) lacks; it needs {format_capability(minimum)} or above: "
                    "choose another precision or device"
                )


def format_capability(capability: Capability) -> str:
    """Return a compute capability as NVIDIA writes it, for example "8.7"."""
    return "{}.{}".format(*capability)
