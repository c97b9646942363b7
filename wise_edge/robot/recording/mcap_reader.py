"""Reads MCAP files through the library mcap, also unfinished ones and around damaged chunks, where it stops."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.native.loading import BoundedFile
from wise_edge.robot.recording.channels import ROS1, Channel, Message
from wise_edge.robot.recording.unpacking import MAX_UNPACKED_BYTES, unpack_lz4, unpack_zstd

if TYPE_CHECKING:
    from mcap.summary import Summary


_MAX_RECORD_BYTES = 1 << 31
"""Largest record that is read, an attachment for example; it may be as large as the file."""


class _Chunk(NamedTuple):
    """The first log time of a chunk, a place from which it is the next record, and its channels; none if not known."""

    first_ns: int
    start: int
    channels: frozenset[int] = frozenset()


class McapFile:
    """An MCAP file, open for reading; a `RecordingFile`.

    Raises:
        MissingExtraError: mcap is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._stream_reader, self._types = require("mcap.stream_reader", "ros"), require("mcap.records", "ros")
        self._counts: Counter[int] = Counter()
        self._chunks: list[_Chunk] = []
        self._loose = False  # whether messages lie outside chunks, as in rosbag2's preset "fastwrite"
        self._file = BoundedFile(path)
        summary = self._read_summary() or self._scan()
        self.channels = [self._describe(channel, summary) for channel in summary.channels.values()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield messages in the order of time; those outside chunks in that of the file, which rosbag2 keeps.

        A damaged chunk is left out, with a note.
        """
        by_id = {channel.id: channel for channel in channels}
        for message in self._loose_messages() if self._loose else self._chunked_messages(by_id.keys()):
            if message.channel_id in by_id:
                yield message.log_time, by_id[message.channel_id], message.data

    def _loose_messages(self) -> Iterator[Any]:
        records = (record for _, record in self._records(emit_chunks=False))
        messages = (record for record in records if isinstance(record, self._types.Message))
        try:
            yield from islice(messages, self._counts.total())
        except Exception as error:  # mcap raises its own, struct's and others
            raise UsageError(self._damage(error)) from error

    def _chunked_messages(self, wanted: Collection[int]) -> Iterator[Any]:
        """Yield messages in the order of time; only chunks that overlap are in memory at once."""
        pending = deque(sorted(chunk for chunk in self._chunks if not chunk.channels or chunk.channels & set(wanted)))
        heap: list[tuple[int, int, int, Any]] = []
        while pending or heap:
            while pending and (not heap or pending[0].first_ns <= heap[0][0]):
                start = pending.popleft().start
                for place, record in enumerate(self._unpack(start)):
                    if isinstance(record, self._types.Message) and record.channel_id in wanted:
                        heapq.heappush(heap, (record.log_time, start, place, record))
            if heap:
                yield heapq.heappop(heap)[-1]

    def _records(self, start: int = 0, *, emit_chunks: bool = True) -> Iterator[tuple[int, Any]]:
        """Yield the records from a place on, each with a place from which it is the next one that mcap knows."""
        self._file.seek(start)
        reader = self._stream_reader.StreamReader(
            self._file, skip_magic=start > 0, emit_chunks=emit_chunks, record_size_limit=_MAX_RECORD_BYTES
        )
        for record in reader.records:
            end = self._file.tell()
            yield start, record
            start = self._file.seek(end)

    def _unpack(self, start: int, chunk: Any = None) -> list[Any]:
        """Return the records of a chunk; none, with a note, if it is damaged."""
        try:
            chunk = chunk or next(self._records(start))[1]
            if chunk.uncompressed_size > MAX_UNPACKED_BYTES:
                raise ValueError(f"a chunk of {chunk.uncompressed_size} bytes")
            if unpack := {"zstd": unpack_zstd, "lz4": unpack_lz4}.get(chunk.compression):  # mcap sets no bound
                chunk = replace(chunk, compression="", data=unpack(chunk.data))
            return list(self._stream_reader.breakup_chunk(chunk, validate_crc=True))
        except Exception as error:  # each decompressor raises its own
            note = f"{self._damage(error)}; without that, what is in a chunk of it is left out"
            self.notes += [note] if note not in self.notes else []
            return []

    def _damage(self, error: Exception) -> str:
        reason, name = str(error) or "it ends too early", quote(str(self._path))
        return f"{self._path} is damaged ({reason}); repair it: mcap recover {name} -o repaired.mcap"

    def _read_summary(self) -> Summary | None:
        """Read channels, counts and chunks from the summary; return None if it is missing or not complete."""
        reader = require("mcap.reader", "ros")
        summary: Summary | None = None
        with suppress(Exception):  # mcap raises its own, struct's and others
            summary = reader.SeekingReader(self._file, record_size_limit=_MAX_RECORD_BYTES).get_summary()
        if summary is None or summary.statistics is None:
            return None
        stated, channels = summary.statistics, summary.channels.values()
        described = all(channel.schema_id in summary.schemas for channel in channels if channel.schema_id)
        counted = stated.channel_count == len(channels) and stated.chunk_count == len(summary.chunk_indexes)
        if not (described and counted):
            return None
        self._counts.update(stated.channel_message_counts)
        self._loose = stated.message_count > 0 and stated.chunk_count == 0
        self._chunks = [
            _Chunk(index.message_start_time, index.chunk_start_offset, frozenset(index.message_index_offsets))
            for index in summary.chunk_indexes
        ]
        return summary

    def _scan(self) -> Summary:
        """Find channels, counts and chunks by reading the file as far as it goes."""
        summary: Summary = require("mcap.summary", "ros").Summary()
        with suppress(Exception):  # where the file is cut short, as in `_read_summary`
            for start, record in self._records():
                inner = [record]
                if isinstance(record, self._types.Chunk):
                    inner = self._unpack(start, record)
                    self._chunks.append(_Chunk(record.message_start_time, start))
                self._loose |= isinstance(record, self._types.Message)
                for found in inner:
                    self._declare(found, summary)
                if isinstance(record, self._types.DataEnd):
                    return summary
        self.notes.append(
            f"{self._path} is unfinished, as if its recorder was killed; its {self._counts.total()} complete "
            "messages are used"
        )
        return summary

    def _declare(self, record: Any, summary: Summary) -> None:
        """Keep a schema or a channel, or count a message."""
        if isinstance(record, self._types.Schema):
            summary.schemas[record.id] = record
        elif isinstance(record, self._types.Channel):
            summary.channels[record.id] = record
        elif isinstance(record, self._types.Message):
            self._counts[record.channel_id] += 1

    def _describe(self, channel: Any, summary: Summary) -> Channel:
        schema = summary.schemas.get(channel.schema_id)
        name = schema.name if schema else ""
        if channel.message_encoding == ROS1:
            name = name.replace("/", "/msg/", 1)  # ROS 1 has no folders of messages in its names
        text = schema.data.decode(errors="replace") if schema else ""
        return Channel(
            channel.id,
            channel.topic,
            name,
            channel.message_encoding,
            self._counts[channel.id],
            definition=text,
            definition_format=schema.encoding if schema and text else "",
            digest=channel.metadata.get("topic_type_hash", ""),
            qos=channel.metadata.get("offered_qos_profiles", ""),
        )
