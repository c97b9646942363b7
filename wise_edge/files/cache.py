"""The folder for files that only save time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for files that only save time and may be deleted at any time; it may not exist yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wise-edge"
