"""Reads MCAP files: by their summary, or from the start if the recorder was killed before it wrote one."""

from __future__ import annotations

import heapq
import struct
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from wise_edge.errors import UsageError
from wise_edge.robot.recording.channels import ROS1, Channel, Message
from wise_edge.robot.recording.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    DIGEST,
    FOOTER,
    HEAD,
    MAGIC,
    MESSAGE,
    MESSAGE_HEAD,
    QOS,
    SCHEMA,
    STATISTICS,
    Fields,
    unpack_chunk,
    unpack_records,
)

_FOOTER_BYTES = 20
_TAIL = HEAD.size + _FOOTER_BYTES + len(MAGIC)


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk's record starts, its first log time, and its channels; none if they are not known."""

    start: int
    first_ns: int
    channels: frozenset[int] = frozenset()


class McapFile:
    """An MCAP file, open for reading; a `RecordingFile`.

    Raises:
        UsageError: nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._size = path.stat().st_size
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._declared: dict[int, tuple[int, str, str, dict[str, str]]] = {}
        self._counts: Counter[int] = Counter()
        self._chunks: list[_Chunk] = []
        self._loose = False  # whether messages lie outside chunks, as in rosbag2's preset "fastwrite"
        self._file = path.open("rb")
        try:
            if not self._read_summary():
                self._scan()
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError | struct.error):
                raise self._damaged(error) from error
            raise
        self.channels = [self._describe(id) for id in self._declared]
        self._by_id = {channel.id: channel for channel in self.channels}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield messages in the order of time; those outside chunks in that of the file, which rosbag2 keeps.

        A damaged chunk is left out, with a note.
        """
        wanted = {channel.id for channel in channels}
        for content in self._loose_messages(wanted) if self._loose else self._chunked_messages(wanted):
            channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(content)
            yield time_ns, self._by_id[channel], bytes(content[MESSAGE_HEAD.size :])

    def _loose_messages(self, wanted: set[int]) -> Iterator[memoryview]:
        return (content for _, opcode, content, whole in self._records() if whole and _is_of(wanted, opcode, content))

    def _chunked_messages(self, wanted: set[int]) -> Iterator[memoryview]:
        """Yield messages in the order of time; only chunks that overlap are in memory at once."""
        chunks = (chunk for chunk in self._chunks if not chunk.channels or chunk.channels & wanted)
        pending = deque(sorted(chunks, key=lambda chunk: chunk.first_ns))
        heap: list[tuple[int, int, int, memoryview]] = []
        while pending or heap:
            while pending and (not heap or pending[0].first_ns <= heap[0][0]):
                start = pending.popleft().start
                for place, opcode, content in self._unpack_whole(start):
                    if _is_of(wanted, opcode, content):
                        heapq.heappush(heap, (MESSAGE_HEAD.unpack_from(content)[2], start, place, content))
            if heap:
                yield heapq.heappop(heap)[-1]

    def _unpack_whole(self, start: int) -> Iterator[tuple[int, int, memoryview]]:
        try:
            return self._unpack(start, *self._record(start)[1:])
        except UsageError as error:
            note = f"{error}; without that, what is in a chunk of it is left out"
            self.notes += [note] if note not in self.notes else []
            return iter(())

    def _unpack(self, start: int, content: memoryview, whole: bool) -> Iterator[tuple[int, int, memoryview]]:
        """Return the records of a chunk.

        Raises:
            UsageError: it is damaged.
        """
        try:
            records = unpack_chunk(content, whole=whole)
        except Exception as error:  # each decompressor raises its own
            raise self._damaged(error) from error
        return unpack_records(records)

    def _damaged(self, error: Exception) -> UsageError:
        name = quote(str(self._path))
        return UsageError(f"{self._path} is damaged ({error}); repair it: mcap recover {name} -o repaired.mcap")

    def _record(self, start: int) -> tuple[int, memoryview, bool]:
        """Return the opcode and content of the record at a place, and whether all of it is there."""
        if start + HEAD.size > self._size:
            return 0, memoryview(b""), False
        self._file.seek(start)
        opcode, length = HEAD.unpack(self._file.read(HEAD.size))
        content = self._file.read(min(length, self._size - start - HEAD.size))
        return opcode, memoryview(content), len(content) == length

    def _records(self) -> Iterator[tuple[int, int, memoryview, bool]]:
        """Yield place, opcode, content and wholeness of the records outside chunks, up to the footer or a cut end."""
        start, whole = len(MAGIC), True
        while whole:
            opcode, content, whole = self._record(start)
            if opcode == 0:  # no opcode: the end of the file, or zeros that a power failure left
                return
            yield start, opcode, content, whole
            if opcode == FOOTER:
                return
            start += HEAD.size + len(content)

    def _read_summary(self) -> bool:
        """Read channels, counts and chunks from the summary; return whether there is a complete one."""
        end = self._size - _TAIL
        if end < len(MAGIC):
            return False
        opcode, footer, _ = self._record(end)
        if opcode != FOOTER or self._file.read() != MAGIC:
            return False
        start = Fields(footer).number("Q")
        if not len(MAGIC) < start < end:
            return False
        self._file.seek(start)
        stated = None
        for _, opcode, content in unpack_records(memoryview(self._file.read(end - start))):
            if opcode == CHUNK_INDEX:
                fields = Fields(content)
                first_ns, _, place, _ = (fields.number("Q") for _ in range(4))
                self._chunks.append(_Chunk(place, first_ns, frozenset(fields.mapping("H", "Q"))))
            elif opcode == STATISTICS:
                stated = Fields(content)
            else:
                self._declare(opcode, content)
        if stated is None:
            return False
        messages, _, channels, *_, chunks = (stated.number(form) for form in "QHIIII")
        stated.take(16)  # first and last time
        self._counts.update(stated.mapping("H", "Q"))
        self._loose = messages > 0 and chunks == 0
        described = all(schema in self._schemas for schema, *_ in self._declared.values() if schema)
        return described and channels == len(self._declared) and chunks == len(self._chunks)

    def _scan(self) -> None:
        """Find channels, counts and chunks by reading the file as far as it goes."""
        self._counts.clear()
        self._chunks.clear()
        opcode = 0
        for start, opcode, content, whole in self._records():
            if opcode == CHUNK:
                try:
                    records = list(self._unpack(start, content, whole))
                except UsageError:  # what follows is not known to be a record
                    opcode = 0
                    break
                self._chunks.append(_Chunk(start, CHUNK_HEAD.unpack_from(content)[0]))
                for _, inner, record in records:
                    self._declare(inner, record)
            elif whole:
                self._loose |= opcode == MESSAGE
                self._declare(opcode, content)
        if opcode != FOOTER:
            self.notes.append(
                f"{self._path} is unfinished, as if its recorder was killed; its {sum(self._counts.values())} complete "
                "messages are used"
            )

    def _declare(self, opcode: int, content: memoryview) -> None:
        """Keep a schema or a channel, or count a message."""
        fields = Fields(content)
        if opcode == SCHEMA:
            id = fields.number("H")
            self._schemas[id] = fields.text(), fields.text(), fields.text()
        elif opcode == CHANNEL:
            id, schema, topic, encoding = fields.number("H"), fields.number("H"), fields.text(), fields.text()
            self._declared[id] = schema, topic, encoding, fields.mapping("s", "s")
        elif opcode == MESSAGE:
            self._counts[fields.number("H")] += 1

    def _describe(self, id: int) -> Channel:
        schema, topic, encoding, metadata = self._declared[id]
        name, form, text = self._schemas.get(schema, ("", "", ""))
        if encoding == ROS1:
            name = name.replace("/", "/msg/", 1)  # ROS 1 has no folders of messages in its names
        return Channel(
            id,
            topic,
            name,
            encoding,
            self._counts[id],
            definition=text,
            definition_format=form if text else "",
            digest=metadata.get(DIGEST, ""),
            qos=metadata.get(QOS, ""),
        )


def _is_of(channels: set[int], opcode: int, content: memoryview) -> bool:
    """Return whether a record is a message of one of the channels."""
    return opcode == MESSAGE and len(content) >= MESSAGE_HEAD.size and MESSAGE_HEAD.unpack_from(content)[0] in channels
