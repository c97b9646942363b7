"""The sidecar of an engine, which says whether the engine can be loaded here, and the plan to build engines.

An engine that was built for another GPU or by another version fails in TensorRT with a message that says neither.
Therefore the build writes a sidecar from the network (an engine cannot be inspected without a GPU), and a runtime reads
it before it loads the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from wise_edge.bundle.devices import Capability, GpuKind, format_capability
from wise_edge.bundle.store import Bundle
from wise_edge.errors import BundleError, DeviceError, UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.mapping import from_mapping
from wise_edge.ranges import Checked, Name, Range

Shape = Annotated[tuple[Annotated[int, Range(0, 2**31 - 1)], ...], Range(0, 64)]
T = TypeVar("T")


@dataclass(frozen=True)
class ShapeRange(Checked):
    """The shapes that an engine accepts for one input.

    Attributes:
        smallest: smallest size along each axis.
        typical: the shape that the engine is tuned for.
        largest: largest size along each axis.
    """

    smallest: Shape
    typical: Shape
    largest: Shape

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.smallest) == len(self.typical) == len(self.largest) or not all(
            least <= usual <= most for least, usual, most in zip(self.smallest, self.typical, self.largest, strict=True)
        ):
            raise ValueError(f"typical: {self.typical} is not from {self.smallest} to {self.largest} along each axis")


@dataclass(frozen=True)
class ArraySpec(Checked):
    """An input or output of an engine.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of its type.
        shape: its size along each axis, -1 if that varies.
    """

    name: Name
    dtype: Name
    shape: Annotated[tuple[Annotated[int, Range(-1, 2**31 - 1)], ...], Range(0, 64)]


class _JsonFile:
    """A dataclass that is stored as a JSON file of its own."""

    def to_json(self) -> str:
        """Return the content of the file."""
        return to_json(asdict(self), indent=2) + "\n"  # type: ignore[call-overload]

    @classmethod
    def _read(cls: type[T], file: Path, kind: str, remedy: str) -> T:
        try:
            entries = read_json(file, remedy=remedy)
        except UsageError as error:
            raise BundleError(str(error)) from error
        try:
            return from_mapping(cls, entries)
        except UsageError as error:
            raise BundleError(f"{file} is not a valid {kind} ({error}); {remedy}") from error


@dataclass(frozen=True)
class Sidecar(Checked, _JsonFile):
    """The description of an engine.

    Attributes:
        graph: role of the ONNX graph that it was built from.
        source_sha256: hash of that graph, see `source_hash`.
        builder: import name of the package that built it.
        builder_version: that package's version.
        capabilities: compute capabilities that it was built for, for example "8.6".
        types: number types in it, numpy's names or "bf16", "fp8", "int4", "fp4".
        inputs: its inputs.
        outputs: its outputs.
        ranges: the accepted shapes of each input.
        bytes: size of the engine's file.
        sha256: hash of the engine's file, hexadecimal.
    """

    graph: Name
    source_sha256: Name
    builder: Name
    builder_version: Name
    capabilities: tuple[Name, ...]
    types: tuple[Name, ...]
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    ranges: Mapping[str, ShapeRange]
    bytes: Annotated[int, Range(0, 2**63 - 1)]
    sha256: Name

    @classmethod
    def read(cls, file: Path) -> Sidecar:
        """Read a sidecar; raises `BundleError` if it is invalid."""
        return cls._read(file, "sidecar of an engine", _rebuild(file))

    def check(self, engine: Path, builder: str, builder_version: str, capability: Capability) -> None:
        """Reject an engine that was not built for this GPU and this version of the package.

        Args:
            engine: the engine's file, for the message.
            builder: import name of the package that will load it.
            builder_version: version of that package.
            capability: compute capability of this machine's GPU.

        Raises:
            DeviceError: it would not load or not run here.
        """
        here = format_capability(capability)
        if builder != self.builder:
            raise DeviceError(f"{engine} was built by {self.builder}, not by {builder}; {_rebuild(engine)}")
        if builder_version != self.builder_version:
            raise DeviceError(
                f"{engine} was built by {builder} {self.builder_version}, but {builder_version} is installed; "
                f"{_rebuild(engine)}"
            )
        if here not in self.capabilities:
            raise DeviceError(
                f"{engine} was built for compute capability {', '.join(self.capabilities)}, but this GPU has {here}; "
                f"{_rebuild(engine)}"
            )


def _rebuild(file: Path) -> str:
    return f"build it here: wise-edge build {file.parent}"


@dataclass(frozen=True)
class GraphPlan(Checked):
    """How to build one graph's engine.

    Attributes:
        graph: role of the graph.
        ranges: the shapes to accept for each input of varying shape.
    """

    graph: Name
    ranges: Mapping[str, ShapeRange]


@dataclass(frozen=True)
class BuildPlan(Checked, _JsonFile):
    """How to build a bundle's engines: all that a device needs to know.

    Attributes:
        targets: names of the kinds of GPU to build for.
        graphs: the graphs.
    """

    targets: tuple[Name, ...]
    graphs: tuple[GraphPlan, ...]

    @classmethod
    def read(cls, file: Path) -> BuildPlan:
        """Read a plan; raises `BundleError` if it is invalid."""
        return cls._read(file, "build plan", "export the bundle again")


def source_hash(bundle: Bundle, graph: str) -> str:
    """Return the recorded hash of an ONNX graph, joined with that of its weights if they are a separate file."""
    roles = {artifact.role: artifact.sha256 for artifact in bundle.manifest.artifacts}
    return "+".join(roles[role] for role in (graph, f"{graph}.data") if role in roles)


def format_capabilities(kinds: tuple[GpuKind, ...]) -> tuple[str, ...]:
    """Return the compute capabilities of kinds of GPU as a sidecar records them."""
    return tuple(format_capability(kind.capability) for kind in kinds)
