"""Where the repository and its files lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
SUPPORT = ROOT / "tests" / "support"
"""These modules, which tests import by their own names."""
ASSETS = ROOT / "wise_edge" / "assets"
"""The models that ship."""
