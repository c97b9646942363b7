"""The memory of this process, on the host and on a GPU."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.nvml import read_gpu_state


@dataclass(frozen=True)
class Footprint:
    """Memory of this process. A Jetson's GPU shares the host's memory, and NVML does not report it there.

    Attributes:
        host_peak_bytes: peak resident memory since `reset_peak`; None if the system does not report it.
        gpu_bytes: current memory on the first GPU; None without a GPU, or if NVML does not report it.
    """

    host_peak_bytes: int | None
    gpu_bytes: int | None


def reset_peak() -> None:
    """Reset the peak of resident memory if the system supports it (Linux, proc(5), clear_refs)."""
    with suppress(OSError):  # the peak then counts from the start of the process: higher, never lower
        Path("/proc/self/clear_refs").write_text("5")


def read_footprint() -> Footprint:
    """Return the memory of this process."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    try:
        gpu_bytes = read_gpu_state().memory_bytes
    except DeviceError:
        gpu_bytes = None
    return Footprint(int(found[1]) * 1024 if found else None, gpu_bytes)
