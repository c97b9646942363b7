"""What lies beside an engine, so that a runtime knows whether it may be loaded here, and what it takes and gives.

An engine that was built for another GPU or by another version fails in TensorRT with a message that says neither. So a
sidecar is written from the network when it is built (an engine cannot be inspected without a GPU), and read before the
engine is touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from wise_edge.bundle.devices import Capability, GpuKind, format_capability
from wise_edge.bundle.store import Bundle
from wise_edge.errors import BundleError, DeviceError, UsageError
from wise_edge.mapping import from_mapping

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that an engine takes for one input.

    Attributes:
        smallest: least size along each axis.
        typical: the shape that it is tuned for.
        largest: largest size along each axis.
    """

    smallest: Shape
    typical: Shape
    largest: Shape


@dataclass(frozen=True)
class ArraySpec:
    """An input or output of an engine.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of its type.
        shape: its sizes, -1 where they vary.
    """

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Sidecar:
    """What is known of an engine.

    Attributes:
        graph: role of the ONNX graph it was built from.
        source_sha256: hash of that graph, see `source_hash`.
        builder: import name of the package that built it.
        builder_version: that package's version.
        capabilities: compute capabilities it was built for, as "8.6".
        types: types of numbers in it, numpy's names or "bf16", "fp8", "int4", "fp4".
        inputs: what it takes.
        outputs: what it gives.
        ranges: for each input, the shapes it takes.
        bytes: size of the engine.
        sha256: hash of the engine.
    """

    graph: str
    source_sha256: str
    builder: str
    builder_version: str
    capabilities: tuple[str, ...]
    types: tuple[str, ...]
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    ranges: Mapping[str, ShapeRange]
    bytes: int
    sha256: str

    def to_json(self) -> str:
        """Return the sidecar's file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, file: Path) -> Sidecar:
        """Read a sidecar; raises `BundleError` where it is none."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            return from_mapping(cls, data)
        except (OSError, ValueError, UsageError) as error:
            raise BundleError(f"{file} is no sidecar of an engine ({error}); {_rebuild(file)}") from error

    def check(self, engine: Path, builder: str, builder_version: str, capability: Capability) -> None:
        """Refuse an engine that was not built for this GPU and this version of the package.

        Args:
            engine: the engine's file, for the message.
            builder: import name of the package that is to load it.
            builder_version: its version.
            capability: compute capability of the GPU here.

        Raises:
            DeviceError: it would not load, or not run.
        """
        here = format_capability(capability)
        if builder != self.builder:
            raise DeviceError(f"{engine} was built by {self.builder}, here is {builder}; {_rebuild(engine)}")
        if builder_version != self.builder_version:
            raise DeviceError(
                f"{engine} was built by {builder} {self.builder_version}, installed is {builder_version}; "
                f"{_rebuild(engine)}"
            )
        if here not in self.capabilities:
            raise DeviceError(
                f"{engine} was built for compute capability {', '.join(self.capabilities)}, this GPU has {here}; "
                f"{_rebuild(engine)}"
            )


def _rebuild(file: Path) -> str:
    return f"build it here: wise-edge build {file.parent}"


@dataclass(frozen=True)
class GraphPlan:
    """How one graph becomes an engine.

    Attributes:
        graph: its role.
        ranges: for each input of varying shape, the shapes to take.
    """

    graph: str
    ranges: Mapping[str, ShapeRange]


@dataclass(frozen=True)
class BuildPlan:
    """How a bundle's graphs become engines: everything that a device needs to know to build them.

    Attributes:
        targets: names of the kinds of GPU to build for.
        graphs: the graphs.
    """

    targets: tuple[str, ...]
    graphs: tuple[GraphPlan, ...]

    def to_json(self) -> str:
        """Return the plan's file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, file: Path) -> BuildPlan:
        """Read a plan; raises `BundleError` where it is none."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            return from_mapping(cls, data)
        except (OSError, ValueError, UsageError) as error:
            raise BundleError(f"{file} is no build plan ({error}); export the bundle again") from error


def source_hash(bundle: Bundle, graph: str) -> str:
    """Return the hash of an ONNX graph as its bundle records it, with that of its weights where they lie apart."""
    roles = {artifact.role: artifact.sha256 for artifact in bundle.manifest.artifacts}
    return "+".join(roles[role] for role in (graph, f"{graph}.data") if role in roles)


def format_capabilities(kinds: tuple[GpuKind, ...]) -> tuple[str, ...]:
    """Return the compute capabilities of kinds of GPU as a sidecar records them."""
    return tuple(format_capability(kind.capability) for kind in kinds)
