"""Writes MCAP files in the form of rosbag2: chunks, and a summary with their index."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from wise_edge import __version__
from wise_edge.robot.recording.channels import Channel
from wise_edge.robot.recording.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    DATA_END,
    DIGEST,
    FOOTER,
    HEADER,
    MAGIC,
    MESSAGE,
    MESSAGE_HEAD,
    MESSAGE_INDEX,
    METADATA,
    METADATA_INDEX,
    QOS,
    SCHEMA,
    STATISTICS,
    pack_bytes,
    pack_numbers,
    pack_record,
    pack_text,
    pack_texts,
)

_CHUNK_BYTES = 1 << 20


@dataclass
class _Chunk:
    records: bytearray = field(default_factory=bytearray)
    times_ns: list[int] = field(default_factory=list)
    index: dict[int, bytearray] = field(default_factory=dict)


class McapSink:
    """An MCAP file, open for writing; a `RecordingSink`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._file.write(MAGIC + pack_record(HEADER, pack_text("ros2"), pack_text(f"wise-edge {__version__}")))
        self._schemas: dict[tuple[str, str, str], int] = {}
        self._declared: list[bytes] = []
        self._counts: dict[int, int] = {}
        self._chunk = _Chunk()
        self._chunk_indexes: list[bytes] = []
        self._times_ns: tuple[int, int] | None = None

    def add(self, channel: Channel) -> None:
        """Add a channel, by its id."""
        key = channel.type, channel.definition_format, channel.definition
        schema = self._schemas.get(key)
        if schema is None:
            schema = self._schemas[key] = len(self._schemas) + 1
            self._declare(SCHEMA, struct.pack("<H", schema), *map(pack_text, key))
        head = struct.pack("<HH", channel.id, schema)
        metadata = pack_texts({QOS: channel.qos, DIGEST: channel.digest})
        self._declare(CHANNEL, head, pack_text(channel.topic), pack_text(channel.encoding), metadata)
        self._counts[channel.id] = 0

    def write(self, channel: Channel, time_ns: int, data: bytes | memoryview) -> None:
        """Add a message."""
        chunk = self._chunk
        chunk.index.setdefault(channel.id, bytearray()).extend(struct.pack("<QQ", time_ns, len(chunk.records)))
        chunk.times_ns.append(time_ns)
        chunk.records += pack_record(MESSAGE, MESSAGE_HEAD.pack(channel.id, 0, time_ns, time_ns), data)
        self._counts[channel.id] += 1
        if len(chunk.records) >= _CHUNK_BYTES:
            self._end_chunk()

    def close(self, metadata: str) -> None:
        """Write the summary, with the text of metadata.yaml, and close the file."""
        with self._file:
            if self._chunk.records:
                self._end_chunk()
            place = self._file.tell()
            record = pack_record(METADATA, pack_text("rosbag2"), pack_texts({"serialized_metadata": metadata}))
            self._file.write(record + pack_record(DATA_END, bytes(4)))
            summary = self._file.tell()
            first_ns, last_ns = self._times_ns or (0, 0)
            counts = sum(self._counts.values()), len(self._schemas), len(self._counts), 0, 1, len(self._chunk_indexes)
            statistics = struct.pack("<QHIIIIQQ", *counts, first_ns, last_ns)
            self._file.write(b"".join((*self._declared, *self._chunk_indexes)))
            self._file.write(pack_record(STATISTICS, statistics, pack_numbers(self._counts)))
            self._file.write(pack_record(METADATA_INDEX, struct.pack("<QQ", place, len(record)), pack_text("rosbag2")))
            self._file.write(pack_record(FOOTER, struct.pack("<QQI", summary, 0, 0)) + MAGIC)

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _declare(self, opcode: int, *parts: bytes) -> None:
        """Write a schema or channel before the messages, and keep it for the summary."""
        self._declared.append(pack_record(opcode, *parts))
        self._chunk.records += self._declared[-1]

    def _end_chunk(self) -> None:
        chunk, self._chunk = self._chunk, _Chunk()
        first_ns, last_ns = min(chunk.times_ns, default=0), max(chunk.times_ns, default=0)
        if chunk.times_ns:
            before = self._times_ns or (first_ns, last_ns)
            self._times_ns = min(first_ns, before[0]), max(last_ns, before[1])
        size, start = len(chunk.records), self._file.tell()
        head = CHUNK_HEAD.pack(first_ns, last_ns, size, 0) + pack_text("") + struct.pack("<Q", size)
        written = self._file.write(pack_record(CHUNK, head, chunk.records))
        places = {}
        for channel, index in chunk.index.items():
            places[channel] = self._file.tell()
            self._file.write(pack_record(MESSAGE_INDEX, struct.pack("<H", channel), pack_bytes(index)))
        index_bytes = self._file.tell() - start - written
        self._chunk_indexes.append(
            pack_record(
                CHUNK_INDEX,
                struct.pack("<QQQQ", first_ns, last_ns, start, written),
                pack_numbers(places),
                struct.pack("<Q", index_bytes),
                pack_text(""),
                struct.pack("<QQ", size, size),
            )
        )
