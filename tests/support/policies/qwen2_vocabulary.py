"""Qwen2's vocabulary, as a tokenizer.json."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

WHOLE = os.environ.get("WISE_EDGE_QWEN2")
"""A file with all of it, if the variable names one; see scripts/extract_vocabulary.py."""
_EXTRACT = Path(__file__).parents[1] / "data/qwen2.json.gz"


def qwen2_tokenizer(folder: Path) -> Path:
    """Return all of the vocabulary if it is there, else an extract, unpacked into a folder."""
    if WHOLE:
        return Path(WHOLE)
    file = folder / "tokenizer.json"
    file.write_bytes(gzip.decompress(_EXTRACT.read_bytes()))
    return file
