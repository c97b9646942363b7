"""Recordings are read whatever wrote them and however it ended, and what is written is what rosbags reads."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from bag_writing import LATCHED, OWN, STORE, as_humble, read_raw, write_bag, write_messages
from ros_types import TYPES, header_message
from wise_edge.errors import UsageError
from wise_edge.robot.recording.channels import Channel
from wise_edge.robot.recording.reader import open_recording
from wise_edge.robot.recording.writer import RecordingWriter

TEXT = "std_msgs/msg/String"


def read(path: Path, topic: str | None = None) -> list[tuple[str, int, bytes]]:
    with open_recording(path) as recording:
        channels = [channel for channel in recording.channels if topic in (None, channel.topic)]
        found = [(channel.topic, time_ns, data) for time_ns, channel, data in recording.messages(channels)]
        assert sum(channel.count for channel in channels) == len(found)
    return found


def notes(path: Path) -> list[str]:
    with open_recording(path) as recording:
        return recording.notes


def words(count: int, size: int = 0) -> list[tuple[int, str, str, object]]:
    """Messages on two topics, not in the order of time; size in bytes."""
    return [
        (
            1_000 + 10 * number + 35 * (number % 3),
            f"/{'ab'[number % 2]}",
            TEXT,
            TYPES[TEXT](data=f"{number}" + "x" * size),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        *(("MCAP", mode) for mode in CompressionMode),
        *(("SQLITE3", mode) for mode in CompressionMode if mode is not CompressionMode.STORAGE),
    ],
)
def test_rosbags_reads_the_same(storage: str, mode: CompressionMode, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = {topic: writer.add_connection(topic, TEXT, typestore=STORE) for topic in ("/a", "/b")}
        for time_ns, topic, _, message in words(40, size=100_000):  # several chunks, which overlap
            writer.write(topics[topic], time_ns, STORE.serialize_cdr(message, TEXT))
    expected = read_raw(tmp_path / "in")
    assert read(tmp_path / "in") == expected
    assert read(tmp_path / "in", "/b") == [message for message in expected if message[0] == "/b"]
    assert notes(tmp_path / "in") == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.STORAGE])
@pytest.mark.parametrize("zeros", [0, 4096])
def test_an_mcap_file_is_read_as_far_as_it_was_written(
    share: float, mode: CompressionMode, zeros: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    writer = Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection("/a", TEXT, typestore=STORE)
        for number in range(60):
            text = rng.bytes(50_000).hex()
            writer.write(topic, number, STORE.serialize_cdr(TYPES[TEXT](data=text), TEXT))
    file = tmp_path / "in" / "in.mcap"
    whole, content = read(file), file.read_bytes()
    file.write_bytes(content[: int(share * len(content))] + bytes(zeros))  # zeros: what a power failure leaves
    (tmp_path / "in" / "metadata.yaml").unlink()
    found = read(tmp_path / "in")
    assert found == whole[: len(found)]
    assert len(found) > share * 60 - 12  # without the chunk that was cut short: 1 MB, 11 messages
    (note,) = notes(tmp_path / "in")
    assert f"in.mcap is unfinished, as if its recorder was killed; its {len(found)} complete messages are used" in note


def write_mcap(file: Path, times_ns: Iterable[int], **options: Any) -> list[tuple[str, int, bytes]]:
    """Write messages on /a by another writer than rosbags, and return what is to be read."""
    messages = [("/a", time_ns, b"\0\1\0\0message %d" % time_ns) for time_ns in times_ns]
    with file.open("wb") as stream:
        writer = McapWriter(stream, **options)
        writer.start("ros2")
        channel = writer.register_channel("/a", "cdr", writer.register_schema(TEXT, "ros2msg", b"string data\n"))
        for _, time_ns, data in messages:
            writer.add_message(channel, time_ns, data, time_ns)
        writer.finish()
    return messages


@pytest.mark.parametrize("compression", CompressionType)
def test_chunks_of_every_compression(compression: CompressionType, tmp_path: Path) -> None:
    expected = write_mcap(tmp_path / "in.mcap", [3, 1, 2], compression=compression)
    assert read(tmp_path / "in.mcap") == sorted(expected)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("repeated", ["", "channel", "schema channel", "schema channel statistics"])
def test_a_summary_of_any_completeness(repeated: str, chunked: bool, tmp_path: Path) -> None:
    """rosbag2's storage options leave out what MCAP allows to: noRepeatedSchemas, noStatistics …, and chunks."""
    expected = write_mcap(
        tmp_path / "in.mcap",
        [5, 6],
        index_types=IndexType.CHUNK if repeated else IndexType.NONE,
        repeat_schemas="schema" in repeated,
        repeat_channels="channel" in repeated,
        use_statistics="statistics" in repeated,
        use_summary_offsets=False,
        use_chunking=chunked,
    )
    assert read(tmp_path / "in.mcap") == expected
    assert notes(tmp_path / "in.mcap") == []
    with open_recording(tmp_path / "in.mcap") as recording:
        assert [(channel.type, channel.definition) for channel in recording.channels] == [(TEXT, "string data\n")]


def test_messages_outside_chunks_are_read_as_far_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "in.mcap"
    expected = write_mcap(file, [5, 7, 6], use_chunking=False)  # in the order of the file, as rosbag2 keeps them
    assert read(file) == expected
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"message 6") + 3])
    assert read(file) == expected[:2]
    (note,) = notes(file)
    assert "in.mcap is unfinished, as if its recorder was killed; its 2 complete messages are used" in note


def test_a_file_compressed_in_several_frames(tmp_path: Path) -> None:
    expected = write_mcap(tmp_path / "in.mcap", range(1000), compression=CompressionType.NONE)
    content = (tmp_path / "in.mcap").read_bytes()
    parts = (content[:5000], content[5000:])
    (tmp_path / "in.mcap.zstd").write_bytes(b"".join(map(zstandard.compress, parts)))
    assert read(tmp_path / "in.mcap.zstd") == expected


@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_chunk_costs_itself_alone(finished: bool, tmp_path: Path) -> None:
    file = tmp_path / "in.mcap"
    expected = write_mcap(file, [1, 2, 3, 4], compression=CompressionType.NONE, chunk_size=1)
    content = file.read_bytes().replace(b"message 2", b"damaged 2")
    file.write_bytes(content if finished else content[:-20])
    with open_recording(file) as recording:
        found = [data for *_, data in recording.messages(recording.channels)]
        assert found == [data for *_, data in expected if data[-1:] != b"2"]
        (note,) = recording.notes
    assert "crc validation failed" in note


def test_a_damaged_chunk_is_named_with_its_remedy(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection("/a", TEXT, typestore=STORE)
        writer.write(topic, 1, STORE.serialize_cdr(TYPES[TEXT](data="word" * 1000), TEXT))
    file = tmp_path / "in" / "in.mcap"
    content = bytearray(file.read_bytes())
    place = content.index(b"\x28\xb5\x2f\xfd")
    content[place + 8 : place + 40] = bytes(32)
    file.write_bytes(content)
    with open_recording(file) as recording:
        assert list(recording.messages(recording.channels)) == []
        (note,) = recording.notes
    assert re.search(r"in\.mcap is damaged \(.*\); repair it: mcap recover .*in\.mcap -o repaired", note)


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_damage_anywhere_is_survived_or_named(storage: str, tmp_path: Path) -> None:
    bag = write_messages(tmp_path / "in", words(20, size=100), storage=storage)
    file = next(file for file in bag.iterdir() if file.suffix != ".yaml")
    content, rng = file.read_bytes(), random.Random(0)
    outcomes = Counter[str]()
    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 3, 10])):
            damaged[rng.choice([rng.randrange(len(content)), -rng.randrange(1, 600)])] = rng.randrange(256)
        file.write_bytes(damaged)
        try:
            with open_recording(file) as recording:
                list(recording.messages(recording.channels))
                outcomes["noted" if recording.notes else "read"] += 1
        except UsageError as error:
            assert str(file) in str(error)
            outcomes["named"] += 1
    assert outcomes["read"] > 0
    assert outcomes["named"] + outcomes["noted"] > 0


def test_a_folder_is_read_without_a_right_metadata_yaml(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", 3)
    expected = read_raw(bag)
    metadata = bag / "metadata.yaml"
    text = metadata.read_text()
    for wrong in (text.replace("storage_identifier: mcap", "storage_identifier: ''"), text[:100], ""):
        metadata.write_text(wrong)
        assert read(bag) == expected
    metadata.unlink()
    (bag / "in.mcap").rename(bag / "renamed_0.mcap")
    assert read(bag) == expected
    (bag / "renamed_1.mcap").write_bytes(b"")  # the recorder was killed just after it began another file
    assert read(bag) == expected
    assert notes(bag) == [f"left out: {bag / 'renamed_1.mcap'} is empty, as if its recorder was killed at the start"]


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", 3)
    metadata = bag / "metadata.yaml"
    text = metadata.read_text().replace("  - in.mcap\n", "  - in.mcap\n  - in_1.mcap\n")
    assert "  custom_data:" in text
    dated = "  custom_data:\n    recorded: 2026-11-30\n  unused:"  # a date, which rosbag2 writes without quotes
    metadata.write_text(text.replace("  custom_data:", dated))
    assert notes(bag) == [f"{bag} lacks files that its metadata.yaml names: in_1.mcap"]


def test_files_of_a_recording_are_one_stream(tmp_path: Path) -> None:
    for name, part in (("one", words(6)[:3]), ("two", words(6)[3:])):
        write_messages(tmp_path / name, part)
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(tmp_path / name / f"{name}.mcap", tmp_path / "in")
    # A recorder that was killed while it compressed a file leaves both.
    (tmp_path / "in" / "one.mcap.zstd").write_bytes(zstandard.compress(b"half")[:-2])
    found = read(tmp_path / "in")
    assert [time_ns for _, time_ns, _ in found] == sorted(time_ns for time_ns, *_ in words(6))


def test_the_write_ahead_log_of_a_killed_recorder_is_read(tmp_path: Path) -> None:
    bag = write_messages(tmp_path / "in", words(4), storage="SQLITE3")
    expected = read_raw(bag)
    with sqlite3.connect(bag / "in.db3") as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute(
            "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, 5000, data FROM messages LIMIT 1"
        )
        base.commit()
        assert (bag / "in.db3-wal").stat().st_size > 0
        killed = tmp_path / "killed"
        shutil.copytree(bag, killed)
    base.close()
    (killed / "in.db3-shm").unlink()
    assert read(killed) == [*expected, (expected[0][0], 5000, expected[0][2])]


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    torn = write_messages(tmp_path / "in", words(400, size=100), storage="SQLITE3") / "in.db3"
    torn.write_bytes(torn.read_bytes()[:20_000])
    for name, content, line in (
        ("none.mcap", None, "does not exist; pass a rosbag2 folder"),
        ("text.mcap", b"nothing", "cannot be read as a bag: it is neither MCAP, SQLite nor a ROS 1 bag"),
        ("empty.db3", b"", "is empty, as if its recorder was killed at the start"),
        ("zeros.mcap", bytes(5000), "is empty, as if its recorder was killed at the start"),
        ("cut.mcap.zstd", zstandard.compress(bytes(5000))[:10], "is damaged or cut short"),
        ("pointer.mcap", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run 'git lfs pull'"),
        ("cut.bag", b"#ROSBAG V2.0\n" + bytes(50), "if its recorder was killed, repair it: rosbag reindex"),
        ("folder", None, "has no .mcap or .db3 file"),
        ("in/in.db3", None, "if its recorder was killed, repair it: sqlite3"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError) as refused:
            read(tmp_path / name)
        assert line in str(refused.value)


def test_definitions_that_a_recorder_did_not_find(tmp_path: Path) -> None:
    """rosbag2 writes no text for them, and an empty encoding; Humble has no definitions at all."""
    own = TYPES[OWN](header=header_message(), torque=1.5)
    bag = write_messages(tmp_path / "in", [(1, "/wheel", OWN, own)], storage="SQLITE3")
    with sqlite3.connect(bag / "in.db3") as base:
        base.execute("UPDATE message_definitions SET encoding = '', encoded_message_definition = ''")
    base.close()
    for path in (bag, as_humble(write_messages(tmp_path / "humble", [(1, "/wheel", OWN, own)], storage="SQLITE3"))):
        with open_recording(path) as recording:
            (channel,) = recording.channels
            assert (channel.type, channel.definition, channel.definition_format) == (OWN, "", "")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_is_written_is_what_rosbags_reads(storage: str, tmp_path: Path) -> None:
    text = write_messages(
        tmp_path / "in", [(7, "/tf_static", TEXT, TYPES[TEXT](data="x"))], qos={"/tf_static": LATCHED}
    )
    with open_recording(text) as recording:
        (latched,) = recording.channels
    bare = Channel(1, "/wheel", OWN, "cdr", 1)
    (tmp_path / "out").mkdir()
    with RecordingWriter(tmp_path / "out", "out", storage) as writer:
        added = [writer.add(latched), writer.add(bare)]
        for number in range(300):
            writer.write(added[number % 2], number, b"\0\1\0\0" + bytes(8000))
    with AnyReader([tmp_path / "out"], default_typestore=STORE) as reader:
        first, second = reader.connections
        assert (first.topic, first.ext.offered_qos_profiles) == ("/tf_static", [LATCHED])
        assert (first.msgdef.data, first.msgcount) == (latched.definition, 150)
        assert (second.msgtype, second.msgdef.format, second.digest) == (OWN, MessageDefinitionFormat.NONE, "")
        assert (reader.start_time, reader.end_time, reader.message_count) == (0, 300, 300)
    assert read(tmp_path / "out") == read_raw(tmp_path / "out")
    assert [time_ns for _, time_ns, _ in read(tmp_path / "out")] == list(range(300))
    file = next(file for file in (tmp_path / "out").iterdir() if file.suffix != ".yaml")
    assert read(file) == read_raw(tmp_path / "out")  # without metadata.yaml
