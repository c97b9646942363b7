"""Which backend runs a part of a bundle: a pure function of the bundle, this device and what was requested.

"auto" lists every backend that could run, best first; if one does not start, the next is tried. A name lists that
backend alone: an explicit request never falls back.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass

from wise_edge.bundle.devices import Capability
from wise_edge.bundle.manifest import Manifest
from wise_edge.errors import DeviceError, MissingExtraError, UsageError
from wise_edge.runtimes.backends import Backend, list_backends, suggest_names


@dataclass(frozen=True)
class DeviceCapabilities:
    """What this device offers.

    Attributes:
        packages: import names of the optional packages that are installed.
        builds: names of the backends whose `Backend.build_fits` returned True.
        gpu: compute capability of the GPU; None without one, or if nobody asked for it.
    """

    packages: Container[str]
    builds: Collection[str] = ()
    gpu: Capability | None = None


def list_candidates(
    manifest: Manifest, device: DeviceCapabilities, part: str, requested: str = "auto"
) -> tuple[Backend, ...]:
    """List the backends to try, in order.

    Args:
        manifest: the bundle's.
        device: what this device offers.
        part: "policy" or "mask".
        requested: "auto" or a backend's name.

    Returns:
        At least one backend; exactly one if a name was requested.

    Raises:
        UsageError: no backend has that name.
        MissingExtraError: the backend's package is not installed; under "auto", that of the first CPU backend that
            the bundle has files for.
        DeviceError: the bundle or the device lacks something else.
    """
    rows = list_backends(part)
    if requested == "auto":
        return _list_runnable(rows, manifest, device, part)
    for backend in rows:
        if backend.name == requested:
            check(backend, manifest, device, part)
            return (backend,)
    names = ", ".join(backend.name for backend in rows)
    meant = suggest_names(part, requested)
    advice = f"did you mean {meant}? choose" if meant else "choose"
    raise UsageError(f"unknown {part} backend '{requested}'; {advice} one of auto, {names}")


def list_rejected(manifest: Manifest, device: DeviceCapabilities, part: str, chosen: str) -> tuple[str, ...]:
    """Return why each backend that is preferred to the chosen one cannot run a part, best first."""
    reasons = []
    for backend in list_backends(part):
        if backend.name == chosen:
            break
        try:
            check(backend, manifest, device, part)
        except (DeviceError, MissingExtraError) as error:
            reasons.append(f"{backend.name}: {error}")
    return tuple(reasons)


def check(backend: Backend, manifest: Manifest, device: DeviceCapabilities, part: str) -> None:
    """Raise `DeviceError` or `MissingExtraError` if a backend cannot run a part of a bundle here."""
    if missing := _missing(backend, manifest, part):
        raise DeviceError(
            f"the bundle has no {missing[0]} for {backend.runtime}; export it with --target {backend.target}"
        )
    if backend.check_bundle is not None:
        backend.check_bundle(manifest, device, part)
    check_device(backend, device, part)


def check_device(backend: Backend, device: DeviceCapabilities, part: str) -> None:
    """Raise `DeviceError` or `MissingExtraError` if a backend can run a part of no bundle here."""
    if backend.needs_nvidia and device.gpu is None:
        raise DeviceError(f"{backend.runtime} needs an NVIDIA GPU; none is found here, see: wise-edge doctor")
    for package in backend.parts[part].packages:
        if package not in device.packages:
            raise MissingExtraError(package, backend.extra)
    if backend.check_device is not None:
        backend.check_device(device)
    if backend.build_fits is not None and backend.name not in device.builds:
        raise DeviceError(backend.build_advice)


def _list_runnable(
    rows: tuple[Backend, ...], manifest: Manifest, device: DeviceCapabilities, part: str
) -> tuple[Backend, ...]:
    found = []
    for backend in rows:
        try:
            check(backend, manifest, device, part)
        except (DeviceError, MissingExtraError):
            continue
        found.append(backend)
    if not found:  # the first CPU backend that the bundle has files for says what to fix
        on_cpu = [backend for backend in rows if backend.on_gpu is False and backend.parts[part].roles]
        fitting = (backend for backend in on_cpu if not _missing(backend, manifest, part))
        check(next(fitting, on_cpu[0]), manifest, device, part)
    return tuple(found)


def _missing(backend: Backend, manifest: Manifest, part: str) -> list[str]:
    present = {artifact.role for artifact in manifest.artifacts}
    return [role for role in backend.parts[part].roles if role not in present]
