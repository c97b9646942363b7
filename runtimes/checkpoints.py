"""Finding the checkpoint that a bundle was made from, which torch runs."""

from __future__ import annotations

from pathlib import Path

from wise_edge.bundle.store import Bundle, resolve_checkpoint
from wise_edge.errors import DeviceError
from wise_edge.runtimes.backends import CHECKPOINTS


def find_checkpoint(bundle: Bundle, part: str) -> Path:
    """Return the checkpoint of a bundle's part; raises `DeviceError` if it is not on this machine."""
    entry = CHECKPOINTS[part]
    folder = resolve_checkpoint(bundle.manifest.provenance[entry], entry)
    if not folder.exists():
        raise DeviceError(f"the bundle was made from {folder}, which is not here; choose another {part} backend")
    return folder
