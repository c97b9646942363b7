"""Recordings that say more of themselves than they hold, or less."""

from __future__ import annotations

import bz2
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import pytest
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from bag_writing import write_messages
from ros_types import TYPES
from wise_edge.errors import UsageError
from wise_edge.robot.recording import unpacking
from wise_edge.robot.recording.reader import open_recording
from wise_edge.robot.recording.unpacking import unpack_bz2, unpack_file, unpack_lz4, unpack_zstd

TEXT = "std_msgs/msg/String"
PACKERS = {"zstd": zstandard.compress, "lz4": lz4.frame.compress, "bz2": bz2.compress}
UNPACKERS: dict[str, Callable[[bytes], bytes]] = {"zstd": unpack_zstd, "lz4": unpack_lz4, "bz2": unpack_bz2}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of 100 kB on what is decompressed."""
    for module in ("unpacking", "mcap_reader"):
        monkeypatch.setattr(f"wise_edge.robot.recording.{module}.MAX_UNPACKED_BYTES", 100_000)


def read(path: Path) -> tuple[list[bytes], list[str]]:
    with open_recording(path) as recording:
        return [data for _, _, data in recording.messages(recording.channels)], recording.notes


@pytest.mark.parametrize("name", UNPACKERS)
@pytest.mark.usefixtures("small")
def test_what_is_unpacked_has_a_bound(name: str) -> None:
    pack, unpack = PACKERS[name], UNPACKERS[name]
    assert unpack(pack(bytes(99_999))) == bytes(99_999)
    for packed in (pack(bytes(200_000)), pack(bytes(99_999))[:-6]):
        with pytest.raises((ValueError, OSError, RuntimeError, zstandard.ZstdError)):
            unpack(packed)


@pytest.mark.usefixtures("small")
def test_a_zstandard_frame_without_its_size_has_the_same_bound() -> None:
    pack = zstandard.ZstdCompressor(write_content_size=False).compress
    assert unpack_zstd(pack(bytes(99_999))) == bytes(99_999)
    with pytest.raises(zstandard.ZstdError):
        unpack_zstd(pack(bytes(200_000)))


@pytest.mark.parametrize("kind", [CompressionType.LZ4, CompressionType.ZSTD, CompressionType.NONE])
@pytest.mark.usefixtures("small")
def test_a_chunk_of_mcap_that_is_too_large_is_left_out(kind: CompressionType, tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = McapWriter(file, chunk_size=1000, compression=kind)
        writer.start()
        schema = writer.register_schema(TEXT, "ros2msg", b"string data")
        channel = writer.register_channel("/a", "cdr", schema)
        for time_ns, size in enumerate((2000, 200_000, 2000)):
            writer.add_message(channel, time_ns, bytes(size), time_ns)
        writer.finish()
    messages, notes = read(tmp_path / "a.mcap")
    assert [len(data) for data in messages] == [2000, 2000]
    assert "is damaged (a chunk of 200" in notes[0] and "mcap recover" in notes[0]


@pytest.mark.usefixtures("small")
def test_a_chunk_of_mcap_that_states_a_smaller_size_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = McapWriter(file, chunk_size=1000, compression=CompressionType.LZ4)
        writer.start()
        channel = writer.register_channel("/a", "cdr", writer.register_schema(TEXT, "ros2msg", b"string data"))
        writer.add_message(channel, 1, bytes(200_000), 1)
        writer.finish()
    content = (tmp_path / "a.mcap").read_bytes()
    with (tmp_path / "a.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    size = summary.chunk_indexes[0].uncompressed_size.to_bytes(8, "little")
    (tmp_path / "a.mcap").write_bytes(content.replace(size, (50).to_bytes(8, "little"), 1))  # in the chunk
    messages, notes = read(tmp_path / "a.mcap")
    assert not messages and "a chunk is too large" in notes[0]


@pytest.mark.parametrize("kind", Ros1Writer.CompressionFormat)
@pytest.mark.usefixtures("small")
def test_a_chunk_of_ros_1_has_the_same_bound(kind: Ros1Writer.CompressionFormat, tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    for name, size in (("small.bag", 1000), ("large.bag", 200_000)):
        writer = Ros1Writer(tmp_path / name)
        writer.set_compression(kind)
        with writer:
            connection = writer.add_connection("/a", TEXT, typestore=store)
            writer.write(connection, 1, store.serialize_ros1(TYPES[TEXT](data="x" * size), TEXT))
    assert len(read(tmp_path / "small.bag")[0]) == 1
    messages, notes = read(tmp_path / "large.bag")
    assert not messages and "cannot be read (a chunk is too large)" in notes[0]


def test_a_chunk_of_ros_1_is_listed_once(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(tmp_path / "a.bag") as writer:
        connection = writer.add_connection("/a", TEXT, typestore=store)
        writer.write(connection, 1, store.serialize_ros1(TYPES[TEXT](data="x"), TEXT))
    content = (tmp_path / "a.bag").read_bytes()
    record = content[content.index(b"op=\x06") - 8 :]  # where the chunk lies
    count = content.index(b"chunk_count=") + len(b"chunk_count=")
    (tmp_path / "a.bag").write_bytes(content[:count] + (2).to_bytes(4, "little") + content[count + 4 :] + record)
    with pytest.raises(UsageError, match=r"a\.bag cannot be read .*a chunk is listed twice"):
        read(tmp_path / "a.bag")


def test_a_view_that_never_ends_is_refused(tmp_path: Path) -> None:
    bag = write_messages(tmp_path / "in", [(1, "/a", TEXT, TYPES[TEXT](data="x"))], storage="SQLITE3")
    with sqlite3.connect(bag / "in.db3") as base:
        base.execute("DROP TABLE messages")
        base.execute(
            "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"
        )
    base.close()
    with pytest.raises(UsageError, match=r"in\.db3 cannot be read \(interrupted\)"):
        read(bag / "in.db3")


def test_a_file_that_would_fill_the_disk_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "a.mcap.zstd"
    packed.write_bytes(zstandard.compress(random.Random(0).randbytes(1_000_000)))
    (tmp_path / "out").mkdir()
    free = iter((2e9, 5e8))  # of 10 GB; half a GB is enough on a disk of 4 GB, such as a tmpfs
    monkeypatch.setattr(unpacking, "_CHECKED_BYTES", 100_000)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: SimpleNamespace(total=10**10, free=next(free)))
    with pytest.raises(UsageError, match="which has too little room; set TMPDIR to another disk"):
        unpack_file(packed, tmp_path / "out")
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: SimpleNamespace(total=4 * 10**9, free=5e8))
    assert unpack_file(packed, tmp_path / "out").stat().st_size == 1_000_000
