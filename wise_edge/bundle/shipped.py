"""The models that ship with the package, by name; apart from what reads bundles, since completion asks for it."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "embedded"
EMBEDDED_START = "embedded-start"
SHIPPED = (EMBEDDED, EMBEDDED_START)
"""Names of the shipped models: with the trained policy, and with the policy that its training started from."""
SEGMENTERS = ("embedded-mobile-sam", "embedded-edgetam")
"""Names of further shipped checkpoints of segmenters, which no shipped bundle holds."""

ASSETS = Path(__file__).parents[1] / "assets"
MANIFEST_NAME = "bundle.json"


def find_folder(name: str) -> Path:
    """Return the folder of a bundle: that of a shipped one by its name, any other by its path."""
    return ASSETS / name if name in SHIPPED else Path(name)
