"""Importing optional packages; a missing one is reported with the exact pip command, or the Python that it needs."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from wise_edge.errors import DeviceError, MissingExtraError

PythonVersion = tuple[int, int]


@dataclass(frozen=True)
class PythonLimit:
    """The versions of Python that the packages of an extra support.

    Attributes:
        least: the oldest version.
        most: the newest version; None if there is no bound.
        machine: the architecture that it concerns, as `platform.machine()` names it; empty for all.
        instead: what to do on an architecture for which the extra installs nothing; empty if it does.
    """

    least: PythonVersion = (3, 10)
    most: PythonVersion | None = None
    machine: str = ""
    instead: str = ""

    def allows(self, version: PythonVersion, machine: str) -> bool:
        """Whether a version of Python on an architecture is within the limit."""
        if self.machine not in ("", machine):
            return True
        return not self.instead and self.least <= version and (self.most is None or version <= self.most)

    def __str__(self) -> str:
        where = f" on {self.machine}" if self.machine else ""
        if self.instead:
            return f"none{where}"
        if self.most:
            return f"{_dotted(self.least)} to {_dotted(self.most)}{where}"
        return f"{_dotted(self.least)} or later{where}"


PYTHON_LIMITS: Mapping[str, tuple[PythonLimit, ...]] = {
    "dev": (PythonLimit((3, 11)),),
    "dora": (PythonLimit((3, 11)),),
    "edgellm": (PythonLimit(most=(3, 12)), PythonLimit((3, 11), (3, 12), "aarch64")),
    "export": (PythonLimit((3, 11)),),
    "gpu": (PythonLimit((3, 11), machine="aarch64"),),
    "tensorrt": (
        PythonLimit(
            machine="aarch64",
            instead="on a Jetson run: sudo apt install nvidia-jetpack; on a server: pip install tensorrt",
        ),
    ),
    "train": (PythonLimit((3, 11)),),
}
"""What limits an extra beyond Python 3.10 or later; `scripts/resolve_extras.py` holds it against the package index.

transformers from 5.21 on and dora-rs from 1.0 on need Python 3.11; `onnxruntime-gpu` has aarch64 wheels from 3.11 on.
TensorRT for a Jetson comes with JetPack; 11.0 to 11.4.0, which pip would install, do not support one
(https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/api/migration/tensorrt-10x-to-11x-jetson.html).
"""


def find_python_lack(extra: str) -> str | None:
    """Return why an extra cannot be installed for this Python on this machine; None if it can."""
    version, machine = sys.version_info[:2], platform.machine()
    for limit in PYTHON_LIMITS.get(extra, ()):
        if not limit.allows(version, machine):
            if limit.instead:
                return f"the extra '{extra}' installs nothing on {machine}: {limit.instead}"
            return f"the extra '{extra}' needs Python {limit}, and this is {_dotted(version)}"
    return None


def check_python(extra: str) -> None:
    """Check that this Python is one that an extra supports, for a command that needs all of it.

    Raises:
        DeviceError: it is not.
    """
    if lack := find_python_lack(extra):
        raise DeviceError(f"{lack}; run it with another interpreter")


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: import name, possibly dotted ("onnxruntime", "google.protobuf").
        extra: the extra of wise-edge that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module, or a parent package of it, is not installed. If an installed module cannot
            import one of its own dependencies, its ImportError is raised, which names the real cause.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(f"{missing}."):
            raise MissingExtraError(module, extra) from error
        raise


def check_packages(extra: str, *modules: str) -> None:
    """Check that modules are installed, without importing them; for the start of a package that needs all of them.

    Args:
        extra: the extra of wise-edge that installs them.
        *modules: import names of top-level modules ("torch", "yaml").

    Raises:
        MissingExtraError: a module is not installed; the first one is named.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, extra)


def _dotted(version: PythonVersion) -> str:
    return "{}.{}".format(*version)
