"""The device that a bundle is for: this machine as `wise-edge doctor` finds it, its CPU alone, or one that is named."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from wise_edge.bundle.devices import Capability, GpuKind, find_gpu_kind, parse_gpu_kinds
from wise_edge.doctor import Finding, Host, examine
from wise_edge.errors import DeviceError, UsageError
from wise_edge.profiling.roofline.shapes import DEVICES
from wise_edge.runtimes.backends import BACKENDS
from wise_edge.runtimes.dispatch import DeviceCapabilities
from wise_edge.runtimes.opening import find_capabilities

THIS, CPU = "this", "cpu"
NAMES = (THIS, CPU, *(device.name for device in DEVICES))
"""What `--device` accepts."""
_SHARE = 0.9
"""Of the free memory that may be planned with: what else runs on a device needs more at one time than at another."""
_SYSTEM_BYTES = {True: 2e9, False: 0.6e9}
"""What the system keeps on a device that is not at hand: of a memory that CPU and GPU share, as a Jetson's, where an
Orin Nano of 8 GB reports 6.1 GB available with its desktop on, and of a card's."""


@dataclass(frozen=True)
class Device:
    """What a bundle may use.

    Attributes:
        name: what `--device` accepts.
        description: the product, for people.
        kind: the kind of its GPU; None without one, or if no engines are built for it.
        capabilities: what it offers to backends.
        gpu_bytes: memory that may be planned with on its GPU; None without one, or if CPU and GPU share a memory.
        memory_bytes: memory that may be planned with on its CPU; None if nothing is known of it.
        here: whether it is this machine.
        advice: by the name of doctor's finding, what to do about it.
    """

    name: str
    description: str
    kind: GpuKind | None
    capabilities: DeviceCapabilities
    gpu_bytes: int | None
    memory_bytes: int | None
    here: bool
    advice: dict[str, str]

    @property
    def has_gpu(self) -> bool:
        """Whether it has an NVIDIA GPU that can be used."""
        return self.capabilities.gpu is not None

    @property
    def shared(self) -> bool:
        """Whether CPU and GPU share a memory."""
        return self.has_gpu and self.gpu_bytes is None


class _Everything:
    """All packages: what is installed on a device that is not at hand is not known."""

    def __contains__(self, package: object) -> bool:
        return True


def check_name(name: str) -> None:
    """Raise `UsageError` if no device has a name."""
    if name not in NAMES:
        raise UsageError(f"unknown device '{name}'; choose one of {', '.join(NAMES)}")


def find_device(name: str, host: Host | None = None) -> tuple[Device, Device]:
    """Return the device that a bundle is for, and this machine, which exports it.

    Args:
        name: one of `NAMES`.
        host: where this machine is examined; see `examine`.

    Raises:
        UsageError: no device has that name.
    """
    check_name(name)
    this = _read_findings(examine(host))
    if name == THIS:
        return this, this
    if name == CPU:
        alone = replace(this.capabilities, builds=(), gpu=None)
        return replace(this, name=CPU, kind=None, capabilities=alone, gpu_bytes=None), this
    return _describe(name), this


def _read_findings(findings: Collection[Finding]) -> Device:
    by_name = {finding.name: finding for finding in findings}
    capability = _capability(by_name["GPU"])
    memory = by_name["memory"].data.get("free_bytes") if "memory" in by_name else None
    on_gpu = by_name["GPU memory"].data["free_bytes"] if "GPU memory" in by_name else None
    shared = "release" in by_name  # a Jetson, whose CUDA counts the memory of both
    board = by_name["board"].text or "this machine"
    gpu = by_name["GPU"].data.get("name") if capability else None
    return Device(
        name=THIS,
        description=f"{board}, {gpu}" if gpu else board,
        kind=_kind(capability),
        capabilities=find_capabilities(BACKENDS, lambda: capability),
        gpu_bytes=None if shared or on_gpu is None else int(_SHARE * on_gpu),
        memory_bytes=None if memory is None else int(_SHARE * memory),
        here=True,
        advice={finding.name: finding.advice for finding in findings if finding.advice},
    )


def _capability(gpu: Finding) -> Capability | None:
    number = gpu.data.get("compute_capability")
    if not number:
        return None
    major, minor = str(number).split(".")
    return int(major), int(minor)


def _kind(capability: Capability | None) -> GpuKind | None:
    try:
        return None if capability is None else find_gpu_kind(capability)
    except DeviceError:
        return None


def _describe(name: str) -> Device:
    """Return a device of the table of published peaks; what is installed there is not known."""
    row = next(device for device in DEVICES if device.name == name)
    kind = parse_gpu_kinds(row.gpu)[0]
    shared = bool(kind.jetpack)
    room = int(_SHARE * (row.memory_gb * 1e9 - _SYSTEM_BYTES[shared]))
    builds = [backend.name for backend in BACKENDS if backend.build_fits and not (shared and backend.extra == "gpu")]
    return Device(
        name=name,
        description=row.description,
        kind=kind,
        capabilities=DeviceCapabilities(_Everything(), builds, kind.capability),
        gpu_bytes=None if shared else room,
        memory_bytes=room if shared else None,
        here=False,
        advice={},
    )
