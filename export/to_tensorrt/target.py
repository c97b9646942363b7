"""`--target tensorrt`: a plan for a bundle's engines, and those that can be built where the export runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from wise_edge.bundle.devices import EXTRAS, GpuKind, check_types
from wise_edge.bundle.roles import PLAN_FILE, PLAN_ROLE
from wise_edge.bundle.store import describe_file, load
from wise_edge.export.progress import Progress
from wise_edge.export.to_tensorrt.bundle import build_engines, buildable_kinds, record_files
from wise_edge.export.to_tensorrt.plan import plan_engines
from wise_edge.extras import check_packages
from wise_edge.native.cuda import find_capability

_PLAN_FORMAT = "engine-plan"


def check_builders(kinds: Sequence[GpuKind], precisions: Collection[str]) -> None:
    """Reject kinds of GPU that engines cannot be built for.

    Args:
        kinds: the GPUs.
        precisions: what the graphs compute with.

    Raises:
        DeviceError: a GPU lacks a precision.
        MissingExtraError: engines are to be built on this machine, and their builder is not installed.
    """
    check_types(precisions, kinds, "this export")
    for builder in sorted({kind.builder for kind in kinds if kind.builds_anywhere}):
        check_packages(EXTRAS[builder], builder)


def add_engines(folder: Path, kinds: tuple[GpuKind, ...], progress: Progress) -> None:
    """Add to a bundle a plan of how engines are built from its graphs, and the engines that can be built here.

    Args:
        folder: the bundle, with its ONNX graphs.
        kinds: the GPUs to build for.
        progress: called with the engine that is being built, and the share that is done.
    """
    bundle = load(folder)
    (folder / PLAN_FILE).write_text(plan_engines(bundle, kinds).to_json(), encoding="utf-8")
    record_files(bundle, [describe_file(folder, PLAN_FILE, PLAN_ROLE, _PLAN_FORMAT)])
    if buildable_kinds(kinds, find_capability()):
        build_engines(folder, progress)
