"""Decompression that yields no more than a bound, whatever the compressed data say of themselves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require

MAX_UNPACKED_BYTES = 1 << 28
"""Largest chunk or message that is decompressed: an image of 25 million pixels of four 16-bit channels has 200 MB.
rosbag2 writes chunks of 1 MB, or of one message."""
_PACKED_BYTES = 1 << 12
"""What of a file is decompressed at once; it becomes 0.13 GB at most."""
_LEFT_FREE_BYTES = 1_000_000_000
"""Of the disk that a file is decompressed to, or a tenth of a smaller one, such as a tmpfs."""
_CHECKED_BYTES = 1 << 26


def unpack_zstd(data: bytes) -> bytes:
    """Return the content of a Zstandard frame; raises `zstandard.ZstdError` if it is damaged or too large."""
    zstandard = require("zstandard", "ros")
    if (size := zstandard.frame_content_size(data)) > MAX_UNPACKED_BYTES:
        raise zstandard.ZstdError(f"it states {size} bytes")
    content: bytes = zstandard.decompress(data, max_output_size=MAX_UNPACKED_BYTES)
    return content


def unpack_lz4(data: bytes) -> bytes:
    """Return the content of an LZ4 frame; raises what the library raises, ValueError if it is too large."""
    return _take_all(require("lz4.frame", "ros").LZ4FrameDecompressor(), data)


def unpack_bz2(data: bytes) -> bytes:
    """Return the content of a bzip2 stream; raises OSError if it is damaged, ValueError if it is too large."""
    import bz2

    return _take_all(bz2.BZ2Decompressor(), data)


def _take_all(decompressor: Any, data: bytes) -> bytes:
    content: bytes = decompressor.decompress(data, max_length=MAX_UNPACKED_BYTES)
    if not decompressor.eof:
        large = len(content) == MAX_UNPACKED_BYTES
        raise ValueError("a chunk is too large" if large else "a chunk is cut short")
    return content


def unpack_file(file: Path, folder: Path) -> Path:
    """Decompress a file of Zstandard into a folder; return the file there.

    Raises:
        UsageError: it is damaged, or leaves too little room on the folder's disk.
    """
    zstandard = require("zstandard", "ros")
    decompressor, plain = zstandard.ZstdDecompressor(), folder / file.stem
    frame, unchecked = decompressor.decompressobj(), _CHECKED_BYTES
    try:
        with file.open("rb") as packed, plain.open("wb") as unpacked:
            while part := frame.unused_data or packed.read(_PACKED_BYTES):
                frame = decompressor.decompressobj() if frame.eof else frame
                unchecked += unpacked.write(frame.decompress(part))
                if unchecked >= _CHECKED_BYTES:
                    unchecked = 0
                    _check_room(file, folder)
        if not frame.eof:
            raise zstandard.ZstdError("its end is missing")
    except zstandard.ZstdError as error:
        raise UsageError(f"{file} is damaged or cut short ({error}); copy it again") from error
    return plain


def _check_room(file: Path, folder: Path) -> None:
    disk = shutil.disk_usage(folder)
    if disk.free < min(_LEFT_FREE_BYTES, disk.total // 10):
        raise UsageError(
            f"{file} is decompressed into {folder.parent}, which has too little room; set TMPDIR to another disk, or "
            f"decompress it: unzstd {file.name}"
        )
