"""Reads pickles of plain data, which run no code and take memory and time in proportion to their size.

The operations are looked through before Python's unpickler runs them. It follows a pickle of nine bytes that asks for a
table of four billion places, and hashes for minutes what one of 265 bytes nests as the key of a dictionary.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_bytes
from wise_edge.native.loading import loading

_COUNTED = {b"U": 1, b"T": 4, b"X": 4, b"\x8c": 1, b"\x8d": 8}
"""Operations with a text to the bytes of its length: SHORT_BINSTRING, BINSTRING, BINUNICODE and its short and long
forms."""


def _counted(codes: bytes, longest: int, padding: bytes = b"") -> bytes:
    """Return the pattern of operations with a length of one byte, and padding, before as many bytes."""
    return rb"%s(?:%s)" % (codes, b"|".join(rb"\x%02x%s.{%d}" % (size, padding, size) for size in range(longest + 1)))


_PLAIN = (
    rb"[(N\x88\x89\]}laedsu\x94]",  # containers and what fills them, None, booleans, MEMOIZE
    rb"[Kqh\x80].",  # a small number, references by short index, PROTO
    b"%(stores)s",
    _counted(b"X", 15, rb"\x00\x00\x00"),  # most texts of a file, in one step
    _counted(rb"[U\x8c]", 15),
    rb"[Jj]....|M..",  # numbers, references by long index
    rb"[SV][^\n]*\n|[IL][^\n]{1,21}\n|g[0-9]{1,9}\n",  # the same as lines of text
    rb"[G\x95].{8}|F[^\n]{1,40}\n",  # floats, FRAME
    _counted(rb"\x8a", 8),  # integers of 64 bits
)
"""The operations that plain data need, the most frequent first:
https://github.com/python/cpython/blob/main/Lib/pickletools.py."""
_MOST_BYTES = 300_000_000
_RUN = 4096  # operations per match: the matcher keeps a note of each


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, dicts, texts, integers of 64 bits, floats, booleans and None.

    Args:
        path: a file of any pickle protocol; byte strings of Python 2 are read as UTF-8.

    Raises:
        UsageError: the file asks for anything else, is damaged, or cannot be read.
    """
    remedy = "download it again from its publisher"
    with loading(path, "a pickle", remedy):
        data = read_bytes(path, _MOST_BYTES, remedy)
        _check_plain(data, path)
        return pickle.loads(data, encoding="utf-8", errors="replace")


def _check_plain(data: bytes, path: Path) -> None:
    """Raise `UsageError` for any operation but those of plain data, `ValueError` for a size beyond the file's."""
    # An index of the table of what was stored is at most the file's size: the unpickler makes the table that long.
    digits, highest = max(1, len(str(len(data))) - 1), min(len(data) >> 16, 255)
    stores = rb"p[0-9]{1,%d}\n|r..[\x00-\x%02x]\x00" % (digits, highest)
    run = re.compile(rb"(?s:%s){1,%d}" % (b"|".join(_PLAIN) % {b"stores": stores}, _RUN)).match
    place = 0
    while place < len(data):
        found = run(data, place)
        place = found.end() if found else place
        operation = data[place : place + 1]
        if width := _COUNTED.get(operation):
            place += 1 + width
            place += int.from_bytes(data[place - width : place], "little")
        elif operation == b".":
            return
        elif found is None:
            name = next((known.name for known in pickletools.opcodes if known.code.encode("latin-1") == operation), "?")
            raise UsageError(f"{path} asks for more than plain data ({name}); it was not loaded, get another copy")
    raise ValueError("its end is missing")
