"""The folder for files that only save time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for files that only save time and may be deleted at any time; it may not exist yet.

    It lies among the temporary files for a user without a home, as in a container that runs with any number as user.
    Source: https://specifications.freedesktop.org/basedir-spec/latest/, by which a relative XDG_CACHE_HOME is ignored.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return Path(given if os.path.isabs(given) else Path.home() / ".cache") / "wise-edge"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"wise-edge-cache-{os.getuid()}"
