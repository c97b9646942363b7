"""A battery's discharge as a source of power: coarse, and of the entire machine.

Other supplies (a charger, a USB-C port) report what they can deliver, and a charging or full battery what flows in:
neither is the machine's power (https://docs.kernel.org/power/power_supply_class.html).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wise_edge.errors import DeviceError
from wise_edge.power.sources import PowerSource
from wise_edge.power.sysfs import ROOT, read_number, read_text


def find_battery(root: Path = ROOT) -> PowerSource | None:
    """Return the first battery that is discharging and reports its power; None if this machine has no battery.

    Args:
        root: where the file system begins.

    Raises:
        DeviceError: there are batteries, but none of them is discharging and reports its power.
    """
    rejected = []
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        if read_text(folder / "type") != "Battery" or read_text(folder / "scope") == "Device":  # a mouse has one too
            continue
        read = partial(_battery_power, folder)
        try:
            read()
        except DeviceError as error:
            rejected.append(str(error))
            continue
        # The driver decides how often the reading changes, which may take seconds.
        return PowerSource(f"power supply {folder.name}", "power", (folder.name,), (0,), None, None, read, (None,))
    if rejected:
        raise DeviceError("; ".join(rejected))
    return None


def _battery_power(folder: Path) -> tuple[float]:
    """Return the power drawn from a battery in W; some drivers count it as negative."""
    if (status := read_text(folder / "status")) != "Discharging":
        raise DeviceError(f"the battery {folder.name} is not discharging (status: {status or 'none'})")
    micro_w = read_number(folder / "power_now")
    if micro_w is not None:
        return (abs(micro_w) / 1e6,)
    micro_v, micro_a = (read_number(folder / name) for name in ("voltage_now", "current_now"))
    if micro_v is None or micro_a is None:
        raise DeviceError(f"the battery {folder.name} reports no power")
    return (abs(micro_v * micro_a) / 1e12,)
