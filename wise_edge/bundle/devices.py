"""The GPUs that engines are built for: what each is called, which package builds for it, and where.

`export`, `build`, `doctor` and the error messages read this one table. Sources: https://developer.nvidia.com/cuda-gpus,
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
"""The name that stands for the GPU of this machine."""

Capability = tuple[int, int]
"""Compute capability of a GPU, major and minor."""


@dataclass(frozen=True)
class Target:
    """A kind of GPU.

    Attributes:
        name: what `--device` takes.
        description: the products.
        capability: compute capability.
        builder: `TENSORRT`, which builds on the device itself, or `TENSORRT_RTX`, which builds anywhere.
        jetpack: the JetPack that brings the builder; empty where pip does.
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
        """Name of the engines that serve it: those for RTX share one file, the others have one each."""
        return "rtx" if self.builds_anywhere else self.name


TARGETS = (
    Target("orin", "Jetson Orin Nano, Orin NX, AGX Orin", (8, 7), TENSORRT, "6 or 7.2"),
    Target("thor", "Jetson AGX Thor", (11, 0), TENSORRT, "7"),
    Target("sm75", "GeForce RTX 20, Turing", (7, 5), TENSORRT_RTX),
    Target("sm86", "GeForce RTX 30, RTX A2000 to A6000", (8, 6), TENSORRT_RTX),
    Target("sm89", "GeForce RTX 40, RTX Ada, L4, L40", (8, 9), TENSORRT_RTX),
    Target("sm120", "GeForce RTX 50, RTX PRO Blackwell", (12, 0), TENSORRT_RTX),
    Target("sm80", "A100, A30", (8, 0), TENSORRT),
    Target("sm90", "H100, H200, GH200", (9, 0), TENSORRT),
    Target("sm100", "B200, GB200", (10, 0), TENSORRT),
)
"""What engines are built for. Untried on all of them: engines were built for the RTX ones, and run on none."""
_ALIASES = {"sm87": "orin", "sm110": "thor"}

LEAST_CAPABILITY: dict[str, Capability] = {
    "fp32": (8, 0),  # of a whole graph: TensorRT for RTX has no float32 products for Turing, but the rest
    "bf16": (8, 0),
    "int8": (8, 0),
    "int4": (8, 0),
    "fp8": (8, 9),
    "fp4": (10, 0),
}
"""The compute capability that a precision or a type of numbers needs; what is not here runs everywhere."""


def find_target(capability: Capability) -> Target:
    """Return the kind of GPU with a compute capability; raises `DeviceError` where there is none."""
    for target in TARGETS:
        if target.capability == capability:
            return target
    raise DeviceError(
        f"no engine is built for compute capability {format_capability(capability)}; use --target gguf or onnx there"
    )


def parse_targets(names: str, this: Capability | None = None) -> tuple[Target, ...]:
    """Return the kinds of GPU that a list names.

    Args:
        names: separated by commas; `THIS` stands for the GPU of this machine.
        this: its compute capability; None without one.

    Raises:
        UsageError: a name is unknown or stands there twice.
        DeviceError: `THIS` is asked for and there is no GPU, or none that engines are built for.
    """
    by_name = {target.name: target for target in TARGETS}
    found: list[Target] = []
    for name in names.split(","):
        name = _ALIASES.get(name, name)
        if name == THIS and this is None:
            raise DeviceError(f"--device this: no NVIDIA GPU is found here; name one of {', '.join(by_name)}")
        if name != THIS and name not in by_name:
            raise UsageError(f"unknown device '{name}'; choose {THIS}, {', '.join(by_name)}")
        target = by_name[name] if name != THIS or this is None else find_target(this)
        if target in found:
            raise UsageError(f"--device names {target.name} twice")
        found.append(target)
    return tuple(found)


def check_types(types: Iterable[str], targets: Sequence[Target], what: str) -> None:
    """Refuse numbers that one of the GPUs cannot compute with: it would fail the build for all of them.

    Args:
        types: names, those of `LEAST_CAPABILITY` among them.
        targets: what is built for.
        what: the file that holds them, for the message.

    Raises:
        DeviceError: a GPU lacks a type.
    """
    for name in sorted(set(types) & set(LEAST_CAPABILITY)):
        least = LEAST_CAPABILITY[name]
        for target in targets:
            if target.capability < least:
                raise DeviceError(
                    f"{what} computes with {name}, which {target.name} (compute capability "
                    f"{format_capability(target.capability)}) lacks; it needs {format_capability(least)} or above: "
                    "choose another precision or device"
                )


def format_capability(capability: Capability) -> str:
    """Return a compute capability as NVIDIA writes it, for example "8.7"."""
    return "{}.{}".format(*capability)
