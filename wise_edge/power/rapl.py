"""The energy counters of a processor (RAPL, Running Average Power Limit) as a source of energy.

"package" domains include their cores; memory ("dram") comes on top, and "psys" includes everything
(https://docs.kernel.org/power/powercap/powercap.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from wise_edge.power.sources import PowerSource, read_parts
from wise_edge.power.sysfs import ROOT, NumberFile, read_number, read_text


def find_rapl(root: Path = ROOT) -> PowerSource | None:
    """Return a processor's energy counters; None if this machine has none.

    Args:
        root: where the file system begins.

    Raises:
        DeviceError: the machine has counters that this user may not read (only root may, since CVE-2020-8694).
    """
    folders = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    # Other domains (core, uncore) are part of their package; intel-rapl-mmio repeats the same counters.
    named = [(folder, read_text(folder / "name")) for folder in folders]
    domains = [(folder, name) for folder, name in named if re.match(r"package|dram|psys", name)]
    if not domains:
        return None
    names = tuple(name for _, name in domains)
    wraps_uj = [read_number(folder / "max_energy_range_uj") for folder, _ in domains]
    reads = [_open_counter(folder / "energy_uj") for folder, _ in domains]
    platform = [index for index, name in enumerate(names) if name.startswith("psys")]
    total = tuple(platform[:1] or range(len(names)))
    source = PowerSource(
        name="RAPL counters of the processor",
        kind="energy",
        parts=names,
        total=total,
        reason=None,
        interval_s=1e-3,  # Intel's manual, volume 3B, "RAPL interfaces": about a millisecond
        read=read_parts(reads, total),
        wrap_j=tuple(None if wrap is None else wrap / 1e6 for wrap in wraps_uj),
        scope="processor",
    )
    source.read()
    return source


def _open_counter(file: Path) -> Callable[[], float]:
    """Return a function that reads a counter's value in J."""
    micro_j = NumberFile(file)
    return lambda: micro_j.read() / 1e6
