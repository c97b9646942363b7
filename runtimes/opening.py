"""Opens the backends of a bundle on this device, in dispatch's order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from wise_edge.bundle.devices import Capability
from wise_edge.bundle.store import Bundle
from wise_edge.errors import DeviceError
from wise_edge.native.cuda import find_capability
from wise_edge.runtimes import backends
from wise_edge.runtimes.backends import PARTS, Backend
from wise_edge.runtimes.base import MaskBackend, PolicyBackend
from wise_edge.runtimes.dispatch import DeviceCapabilities, list_candidates, list_rejected
from wise_edge.runtimes.results import BackendChoice


class InstalledPackages:
    """The import names of the packages that are installed, looked up when they are asked for."""

    def __contains__(self, package: object) -> bool:
        return find_spec(str(package)) is not None


def open_backends(
    bundle: Bundle,
    requested_policy: str = "auto",
    requested_mask: str = "auto",
    *,
    verify_hashes: bool = False,
    **settings: Any,
) -> tuple[PolicyBackend[Any], MaskBackend[Any], dict[str, BackendChoice]]:
    """Open a policy and a mask backend, with the reason for each choice.

    Args:
        bundle: what is run.
        requested_policy: "auto" or a backend's name.
        requested_mask: likewise.
        verify_hashes: compare every file with its hash, once there is a backend for each part.
        settings: `threads`, `flash_attention` and `pixels`, see `Session.from_bundle`.

    Raises:
        UsageError, MissingExtraError, DeviceError: as `list_candidates`, or no candidate started.
        BundleError: a file was altered.
    """
    device, candidates = find_candidates(bundle, requested_policy, requested_mask)
    if verify_hashes:
        bundle.verify_hashes()
    requested = dict(zip(PARTS, (requested_policy, requested_mask), strict=True))
    opened: dict[str, Any] = {}
    choices: dict[str, BackendChoice] = {}
    for part, rows in candidates.items():
        opened[part], choices[part] = _open_part(rows, bundle, part, requested[part], device, settings)
    return opened["policy"], opened["mask"], choices


def open_mask_backend(
    bundle: Bundle, requested: str = "auto", *, verify_hashes: bool = False, **settings: Any
) -> tuple[MaskBackend[Any], BackendChoice]:
    """Open a mask backend alone; the policy's files are not read. Args and Raises: as `open_backends`."""
    rows = [row for row in backends.list_backends("mask") if _has_files(row, bundle, "mask")]
    device = find_capabilities(rows)
    candidates = list_candidates(bundle.manifest, device, "mask", requested)
    if verify_hashes:
        bundle.verify_hashes(but="policy.")
    return _open_part(candidates, bundle, "mask", requested, device, settings)


def find_candidates(
    bundle: Bundle, requested_policy: str = "auto", requested_mask: str = "auto"
) -> tuple[DeviceCapabilities, dict[str, tuple[Backend, ...]]]:
    """Return what this device offers and, for each part of a bundle, the backends to try in order; opens nothing.

    Args and Raises: as `open_backends`, except that a backend that does not start is not noticed.
    """
    rows = (row for row in backends.BACKENDS if any(_has_files(row, bundle, part) for part in row.parts))
    device = find_capabilities(rows)
    requested = zip(PARTS, (requested_policy, requested_mask), strict=True)
    return device, {part: list_candidates(bundle.manifest, device, part, name) for part, name in requested}


def find_capabilities(
    rows: Iterable[Backend], find_gpu: Callable[[], Capability | None] = find_capability
) -> DeviceCapabilities:
    """Find out what this device offers to some backends.

    Their packages and CUDA are asked only if one of them needs it: llama.cpp takes half a second to import.

    Args:
        rows: the backends that may be chosen.
        find_gpu: returns the GPU's compute capability.
    """
    rows, packages = tuple(rows), InstalledPackages()
    builds = [
        row.name
        for row in rows
        if row.build_fits is not None
        and all(package in packages for support in row.parts.values() for package in support.packages)
        and row.build_fits()
    ]
    asks = any(row.needs_nvidia or (row.check_device is not None and row.name in builds) for row in rows)
    return DeviceCapabilities(packages, builds, find_gpu() if asks else None)


def _has_files(row: Backend, bundle: Bundle, part: str) -> bool:
    return {artifact.role for artifact in bundle.manifest.artifacts}.issuperset(row.parts[part].roles)


def _open_part(
    rows: tuple[Backend, ...],
    bundle: Bundle,
    part: str,
    requested: str,
    device: DeviceCapabilities,
    settings: dict[str, Any],
) -> tuple[Any, BackendChoice]:
    row, opened, failures = _open_first(rows, bundle, part, settings)
    reason = row.reason if requested == "auto" else "asked for by name"
    rejected = list_rejected(bundle.manifest, device, part, row.name)
    return opened, BackendChoice(row.name, "; ".join([reason, *failures]), rejected)


def _open_first(
    rows: tuple[Backend, ...], bundle: Bundle, part: str, settings: dict[str, Any]
) -> tuple[Backend, Any, list[str]]:
    """Open the first backend that starts; return its row, itself, and why those before it did not start."""
    failures: list[str] = []
    for row in rows:
        module: Any = import_module(row.parts[part].module)
        try:
            opener = module.open_policy if part == "policy" else module.open_mask
            return row, opener(bundle, row, **settings), failures
        except DeviceError as error:
            failures.append(f"{row.name} did not start: {error}")
    raise DeviceError("; ".join(failures))
