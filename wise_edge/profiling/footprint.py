"""What memory this process takes, of the host and of a GPU."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.nvml import read_gpu_state


@dataclass(frozen=True)
class Footprint:
    """What this process takes; a Jetson's GPU shares the host's memory, which NVML does not tell there.

    Attributes:
        host_peak_bytes: most resident memory since `reset_peak`; None where the system does not tell.
        gpu_bytes: memory of the first GPU now; None without one, or where NVML does not tell.
    """

    host_peak_bytes: int | None
    gpu_bytes: int | None


def reset_peak() -> None:
    """Let the peak of resident memory begin anew where the system can (Linux, proc(5), clear_refs)."""
    with suppress(OSError):  # the peak is then that since the process began: higher, never lower
        Path("/proc/self/clear_refs").write_text("5")


def read_footprint() -> Footprint:
    """Return what this process takes."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    try:
        gpu_bytes = read_gpu_state().memory_bytes
    except DeviceError:
        gpu_bytes = None
    return Footprint(int(found[1]) * 1024 if found else None, gpu_bytes)
