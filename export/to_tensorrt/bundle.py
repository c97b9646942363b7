"""The engines of a bundle: planned by the export, built there or on the device that runs them.

For a device that needs its engines built on it, a bundle holds the ONNX graphs in their precisions and the plan.
`build_engines` completes it there, graph by graph, and resumes after an interruption.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from wise_edge.bundle.devices import EXTRAS, Capability, GpuKind, format_capability, parse_gpu_kinds
from wise_edge.bundle.engines import BuildPlan, GraphPlan, Sidecar, format_capabilities, source_hash
from wise_edge.bundle.manifest import Artifact
from wise_edge.bundle.roles import PLAN_ROLE, engine_file, engine_role
from wise_edge.bundle.store import Bundle, check_space, describe_file, load, write_manifest
from wise_edge.errors import BundleError, DeviceError
from wise_edge.export.progress import Progress
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.extras import require
from wise_edge.files.cache import cache_folder
from wise_edge.files.locks import holding
from wise_edge.native.cuda import find_capability

FORMAT, SIDECAR_FORMAT = "engine", "engine-sidecar"


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        built: roles of the engines that were built.
        kept: roles of existing engines that fit.
        left: planned kinds of GPU that need the build on their own device.
        sha256: hash of `bundle.json`, hexadecimal, which a build changes.
    """

    built: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]
    sha256: str


def build_engines(folder: Path, progress: Progress, *, devices: str | None = None, force: bool = False) -> BuildResult:
    """Build the engines of a bundle that can be built on this machine and are missing or do not fit.

    The manifest is written after each engine, so that an interrupted build resumes with the next one. A lock on the
    folder is held from before the manifest is read to the end, since two builds would lose each other's entries.

    Args:
        folder: the bundle.
        progress: called with the engine that is being built, and the share that is done.
        devices: kinds of GPU to build for, see `parse_gpu_kinds`; None takes the planned ones that can be built here.
        force: rebuild engines that fit.

    Raises:
        BundleError: the bundle has no plan.
        UsageError, DeviceError: as `parse_gpu_kinds`; another process writes the bundle; or no planned engine can be
            built here.
        MissingExtraError: the builder is not installed.
        WiseEdgeError: a build failed; engines built before it are kept.
    """
    with holding(load(folder).directory):
        return _build_missing(load(folder), progress, devices, force)


def _build_missing(bundle: Bundle, progress: Progress, devices: str | None, force: bool) -> BuildResult:
    folder = bundle.directory
    if not any(artifact.role == PLAN_ROLE for artifact in bundle.manifest.artifacts):
        raise BundleError(f"{folder} has no plan of engines; export it with --target tensorrt --device NAME")
    plan = BuildPlan.read(bundle.file(PLAN_ROLE))
    here = find_capability()
    wanted = parse_gpu_kinds(",".join(plan.targets) if devices is None else devices, here)
    possible = buildable_kinds(wanted, here)
    left = tuple(target.name for target in wanted if target not in possible)
    if (devices is not None and left) or not possible:
        raise DeviceError(_explain(left, folder, here))
    for target in possible:
        require(target.builder, EXTRAS[target.builder])
    built, kept = [], []
    check_space(folder, 2 * _size(bundle, plan))
    for engine_set, targets in groupby(sorted(possible, key=_set_of), key=_set_of):
        members = tuple(targets)
        for graph in plan.graphs:
            role = engine_role(graph.graph, engine_set)
            if not force and _fits(bundle, graph, engine_set, members):
                kept.append(role)
                continue
            bundle = _build(bundle, graph, engine_set, members, progress)
            built.append(role)
    return BuildResult(tuple(built), tuple(kept), left, bundle.sha256)


def buildable_kinds(targets: tuple[GpuKind, ...], here: Capability | None) -> tuple[GpuKind, ...]:
    """Return those of the kinds that engines can be built for on a machine with a GPU of capability `here`."""
    return tuple(target for target in targets if target.builds_anywhere or target.capability == here)


def _set_of(target: GpuKind) -> str:
    return target.engine_set


def _explain(left: tuple[str, ...], folder: Path, here: Capability | None) -> str:
    machine = "has no NVIDIA GPU" if here is None else f"has a GPU of compute capability {format_capability(here)}"
    return (
        f"engines for {', '.join(left)} are built on the device itself, and this machine {machine}; "
        f"copy {folder} there and run: wise-edge build {folder.name}"
    )


def _size(bundle: Bundle, plan: BuildPlan) -> int:
    """Return about how many bytes the engines of one set need."""
    roles = {role for graph in plan.graphs for role in (graph.graph, f"{graph.graph}.data")}
    return sum(artifact.bytes for artifact in bundle.manifest.artifacts if artifact.role in roles)


def _fits(bundle: Bundle, graph: GraphPlan, engine_set: str, targets: tuple[GpuKind, ...]) -> bool:
    """Return whether a graph's engine exists and equals what would be built."""
    role = engine_role(graph.graph, engine_set)
    try:
        sidecar = Sidecar.read(bundle.file(f"{role}.json"))
        recorded = bundle.artifact(role)
    except BundleError:
        return False
    trt = require(targets[0].builder, EXTRAS[targets[0].builder])
    return (
        sidecar.source_sha256 == source_hash(bundle, graph.graph)
        and sidecar.sha256 == recorded.sha256
        and (sidecar.builder, sidecar.builder_version) == (targets[0].builder, str(trt.__version__))
        and set(format_capabilities(targets)) <= set(sidecar.capabilities)
        and all(sidecar.ranges.get(name) == given for name, given in graph.ranges.items())
    )


def _build(
    bundle: Bundle, graph: GraphPlan, engine_set: str, targets: tuple[GpuKind, ...], progress: Progress
) -> Bundle:
    """Build one engine and return the bundle with it."""
    role, name = engine_role(graph.graph, engine_set), engine_file(graph.graph, engine_set)
    # The old engine leaves the manifest first: interrupted in between, the bundle merely lacks it.
    bundle = record_files(bundle, [], without=(role, f"{role}.json"))
    request = EngineRequest(
        graph.graph,
        bundle.file(graph.graph),
        source_hash(bundle, graph.graph),
        graph.ranges,
        targets,
        _timing_cache(targets),
    )
    step = f"building {graph.graph} for {', '.join(target.name for target in targets)}"
    progress(step)
    build_engine(request, bundle.directory / name, partial(progress, step))
    precision = bundle.artifact(graph.graph).precision
    return record_files(
        bundle,
        [
            describe_file(bundle.directory, name, role, FORMAT, precision),
            describe_file(bundle.directory, f"{name}.json", f"{role}.json", SIDECAR_FORMAT),
        ],
    )


def record_files(bundle: Bundle, added: list[Artifact], without: Collection[str] = ()) -> Bundle:
    """Update the artifacts in a bundle's manifest and return the bundle."""
    gone = {*without, *(artifact.role for artifact in added)}
    kept = [artifact for artifact in bundle.manifest.artifacts if artifact.role not in gone]
    if len(kept) == len(bundle.manifest.artifacts) and not added:
        return bundle
    manifest = replace(bundle.manifest, artifacts=(*kept, *added))
    write_manifest(bundle.directory, manifest)
    return Bundle(bundle.directory, manifest)


def _timing_cache(targets: tuple[GpuKind, ...]) -> Path | None:
    """Return TensorRT's file of timings for this kind of GPU; None for TensorRT for RTX, whose builds time nothing."""
    if targets[0].builds_anywhere:
        return None
    trt = require(targets[0].builder, EXTRAS[targets[0].builder])
    return cache_folder() / f"timings-{targets[0].name}-{trt.__version__}.cache"
