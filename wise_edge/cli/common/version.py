"""`wise-edge --version --verbose`: what a report of a bug should say, and nothing about who makes it.

No path, host, user, address or serial number is in it; no library is imported, only its metadata is read.
"""

from __future__ import annotations

import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import wise_edge
from wise_edge.files.documents import parse_json

_LIMIT_S = 5.0


def describe_version() -> dict[str, Any]:
    """Return the versions of this program, of Python, of the system, of packages, and the device with its drivers."""
    return {
        "wise-edge": wise_edge.__version__,
        "commit": find_commit(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "system": _find_system(),
        "device": _find_device(),
        "packages": find_packages(),
    }


def format_version(facts: dict[str, Any]) -> str:
    """Return the facts as lines."""
    lines = [(name, value) for name, value in facts.items() if name not in ("device", "packages")]
    lines += list(facts["device"].items()) or [("device", "no NVIDIA GPU was found")]
    lines += list(facts["packages"].items())
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {'unknown' if value is None else value}" for name, value in lines)


def find_commit() -> str | None:
    """Return the commit that is installed, "-dirty" behind it if files were changed; None if it is of no repository."""
    try:
        recorded = metadata.distribution("wise-edge").read_text("direct_url.json")  # PEP 610
    except metadata.PackageNotFoundError:
        recorded = None
    if recorded and (commit := parse_json(recorded, "direct_url.json").get("vcs_info", {}).get("commit_id")):
        return str(commit)
    root = Path(wise_edge.__file__).parents[1]
    if not (root / ".git").exists():  # of this project, not of one in whose folder it is installed
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def find_packages() -> dict[str, str]:
    """Return the versions of all packages that this one or an extra of it names, as far as they are installed."""
    try:
        named = metadata.requires("wise-edge") or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for name in sorted({re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() for each in named}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _find_system() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _find_device() -> dict[str, str | None]:
    """Return the board, the GPU and the driver."""
    from wise_edge.errors import WiseEdgeError
    from wise_edge.power.jetson import read_jetson
    from wise_edge.power.nvml import read_gpu

    found: dict[str, str | None] = {}
    if jetson := read_jetson():
        found |= {"board": jetson.model, "jetpack": jetson.jetpack, "l4t": jetson.l4t}
    try:
        gpu = read_gpu()
    except WiseEdgeError:
        return found
    return found | {"gpu": gpu.name, "driver": gpu.driver}
