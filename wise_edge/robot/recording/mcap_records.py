"""The records of MCAP files (https://mcap.dev/spec): packing, unpacking and decompression."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from wise_edge.extras import require

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
"""Opcodes."""
HEAD = struct.Struct("<BQ")
"""Opcode and length, before every record."""
MESSAGE_HEAD = struct.Struct("<HIQQ")
"""Channel, sequence number, log time and publish time, before a message's data."""
CHUNK_HEAD = struct.Struct("<QQQI")
"""First and last log time, uncompressed size and CRC, before a chunk's compression and records."""
QOS, DIGEST = "offered_qos_profiles", "topic_type_hash"
"""Names in a channel's metadata, of rosbag2."""
MAX_CHUNK_BYTES = 1 << 31
"""Largest chunk that is decompressed; rosbag2 writes chunks of 1 MB, or of one message."""


class Fields:
    """Reads the fields of a record in order; raises ValueError beyond its end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._place = memoryview(data), 0

    def number(self, form: str) -> int:
        """Return an unsigned integer of a `struct` format: "H", "I" or "Q"."""
        return int.from_bytes(self.take(struct.calcsize(f"<{form}")), "little")

    def take(self, size: int) -> memoryview:
        """Return the next bytes."""
        if self._place + size > len(self._data):
            raise ValueError("a record that is too short")
        self._place += size
        return self._data[self._place - size : self._place]

    def rest(self) -> memoryview:
        """Return what has not been read, without reading it."""
        return self._data[self._place :]

    def bytes(self) -> bytes:
        """Return bytes that follow their own length."""
        return bytes(self.take(self.number("I")))

    def text(self) -> str:
        """Return text; bytes that are not UTF-8 become question marks."""
        return self.bytes().decode(errors="replace")

    def mapping(self, key: str, value: str) -> dict[Any, Any]:
        """Return a mapping whose keys and values are numbers of a `struct` format, or text ("s")."""
        inner = Fields(self.bytes())
        found = {}
        while inner.rest():
            name = inner.text() if key == "s" else inner.number(key)
            found[name] = inner.text() if value == "s" else inner.number(value)
        return found


def unpack_records(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield place, opcode and content of each whole record in the content of a chunk."""
    place = 0
    while place + HEAD.size <= len(data):
        opcode, length = HEAD.unpack_from(data, place)
        end = place + HEAD.size + length
        if end > len(data):
            return
        yield place, opcode, data[place + HEAD.size : end]
        place = end


def unpack_chunk(content: memoryview, *, whole: bool) -> memoryview:
    """Return the records within a chunk.

    Args:
        content: of the chunk's record.
        whole: whether all of it is there; otherwise whatever can be decompressed is returned.

    Raises:
        ValueError: the chunk is damaged or too large.
    """
    fields = Fields(content)
    _, _, size, crc = CHUNK_HEAD.unpack(fields.take(CHUNK_HEAD.size))
    compression, packed_size = fields.text(), fields.number("Q")
    if size > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk of {size} bytes")
    packed = fields.rest()[:packed_size]
    data = packed if not compression else memoryview(_decompressor(compression).decompress(packed, max_length=size))
    if whole and (len(data) != size or (crc and zlib.crc32(data) != crc)):
        raise ValueError("a damaged chunk")
    return data


def _decompressor(compression: str) -> Any:
    if compression == "lz4":
        return require("lz4.frame", "ros").LZ4FrameDecompressor()
    if compression == "zstd":
        return zstd().ZstdDecompressor()
    raise ValueError(f"compression {compression}")


def zstd() -> Any:
    """Return the module that decompresses Zstandard: Python's own, or its backport for older versions."""
    return require("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "ros")


def pack_record(opcode: int, *parts: bytes | bytearray | memoryview) -> bytes:
    """Return a record of the joined parts."""
    return b"".join((HEAD.pack(opcode, sum(map(len, parts))), *parts))


def pack_text(text: str) -> bytes:
    """Return text after its length."""
    return pack_bytes(text.encode())


def pack_bytes(data: bytes | bytearray) -> bytes:
    """Return bytes after their length."""
    return struct.pack("<I", len(data)) + data


def pack_texts(values: Mapping[str, str]) -> bytes:
    """Return a mapping of texts."""
    return pack_bytes(b"".join(pack_text(key) + pack_text(value) for key, value in values.items()))


def pack_numbers(values: Mapping[int, int]) -> bytes:
    """Return a mapping of channels to 64-bit numbers."""
    return pack_bytes(b"".join(struct.pack("<HQ", *pair) for pair in values.items()))
