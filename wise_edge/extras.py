"""Importing optional packages; a missing one is reported with the exact pip command."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from wise_edge.errors import MissingExtraError


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
