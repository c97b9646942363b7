"""The one place that opens a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.loading import COPY, loading

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_tokenizer(file: Path, remedy: str = COPY, *, error: type[WiseEdgeError] = UsageError) -> Tokenizer:
    """Return a file's tokenizer, which neither pads nor cuts what it encodes, whatever the file says.

    Raises:
        WiseEdgeError: it is no tokenizer; of the class `error`.
    """
    from tokenizers import Tokenizer

    with loading(file, "a tokenizer", remedy, error=error):
        refuse_lfs_pointer(file)
        tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
    return tokenizer
