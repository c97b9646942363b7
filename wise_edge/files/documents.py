"""Read documents that users bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_lfs_pointer


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        UsageError: the file cannot be read, is a pointer of Git LFS, is not JSON in UTF-8, or holds something other
            than an object.
    """
    refuse_lfs_pointer(file)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{file} does not hold a JSON object")
    return data
