"""A bag survives its worst message: whatever is in it, all that can be answered is answered, and the rest is named."""

from __future__ import annotations

import io
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

import fake_session
from bag_writing import (
    BEGIN_NS,
    LATCHED,
    OWN,
    STEP_NS,
    STORE,
    TOPIC,
    as_humble,
    read_bag,
    read_raw,
    write_bag,
    write_messages,
)
from fake_session import FakeMask, FakePolicy
from ros_types import TYPES, header_message, image_message
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.robot.bag_files import FOUND, MASKS, TOLD
from wise_edge.robot.bags import open_job, process_bag
from wise_edge.robot.frames import Frame
from wise_edge.robot.messages import COMPRESSED, IMAGE, stamp_of
from wise_edge.robot.recording.channels import Channel
from wise_edge.robot.recording.writer import RecordingWriter
from wise_edge.robot.result_messages import TEXT
from wise_edge.runtimes.session import Session

PIXELS = np.full((20, 30, 3), 7, np.uint8)
TF = "tf2_msgs/msg/TFMessage"


def session() -> Session:
    return Session(FakePolicy(), FakeMask(), {})


def image(number: int, **changes: Any) -> tuple[int, str, str, Any]:
    stamp_ns = BEGIN_NS + number * STEP_NS
    message = image_message(PIXELS, stamp_ns=stamp_ns)
    for name, value in changes.items():
        setattr(message, name, value)
    return stamp_ns, TOPIC, IMAGE, message


def told(bag: Path, topic: str = TOLD) -> list[dict[str, Any]]:
    return [json.loads(STORE.deserialize_cdr(data, TEXT).data) for name, _, data in read_raw(bag) if name == topic]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("humble", [False, True])
def test_messages_are_copied_as_they_are(storage: str, humble: bool, tmp_path: Path) -> None:
    transform = TYPES["geometry_msgs/msg/TransformStamped"](
        header=header_message(),
        child_frame_id="camera",
        transform=TYPES["geometry_msgs/msg/Transform"](
            translation=TYPES["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=1.0),
            rotation=TYPES["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        ),
    )
    own = TYPES[OWN](header=header_message(), torque=1.5)
    messages = [(1, "/tf_static", TF, TYPES[TF](transforms=[transform])), image(0), (BEGIN_NS + 5, "/wheel", OWN, own)]
    bag = write_messages(tmp_path / "in", messages, storage="SQLITE3", qos={"/tf_static": LATCHED})
    bag = as_humble(bag) if humble else bag
    out = tmp_path / "out"
    with open_job(bag, None, "the ring", out, storage=storage) as job:
        # Named before anything is asked.
        bare = f"copied without a definition, which the recording does not hold: /wheel ({OWN})"
        assert job.plan.notes == ((bare,) if humble else ())
        job.run(session())

    raw = read_raw(out)
    assert [message for message in raw if not message[0].startswith("/wise_edge")] == read_raw(bag)
    with AnyReader([bag], default_typestore=STORE) as before, AnyReader([out], default_typestore=STORE) as after:
        found = {connection.topic: connection for connection in after.connections}
        for connection in before.connections:
            copied = found[connection.topic]
            assert (copied.msgtype, copied.ext) == (connection.msgtype, connection.ext)
            if not humble:
                assert (copied.msgdef, copied.digest) == (connection.msgdef, connection.digest)
        assert found["/tf_static"].ext.offered_qos_profiles == [LATCHED]
        assert "geometry_msgs/TransformStamped[]" in found["/tf_static"].msgdef.data


def test_a_topic_without_messages_is_not_in_the_way(tmp_path: Path) -> None:
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection(f"{TOPIC}/compressed", COMPRESSED, typestore=STORE)  # advertised, but nobody listened
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        writer.write(camera, BEGIN_NS, STORE.serialize_cdr(image(0)[3], IMAGE))
    assert process_bag(session(), tmp_path / "in", None, "the ring", tmp_path / "out").found == 1


def test_profiles_that_only_the_metadata_holds_are_kept(tmp_path: Path) -> None:
    """Tools that rewrite MCAP files leave them out of its channels."""
    bag = write_messages(tmp_path / "in", [image(0)], qos={TOPIC: LATCHED})
    metadata = (bag / "metadata.yaml").read_text()
    assert "durability" in metadata
    write_messages(tmp_path / "bare", [image(0)])
    shutil.copy(tmp_path / "bare" / "bare.mcap", bag / "in.mcap")
    process_bag(session(), bag, None, "the ring", tmp_path / "out")
    with AnyReader([tmp_path / "out"]) as reader:
        found = {connection.topic: connection.ext.offered_qos_profiles for connection in reader.connections}
    assert found[TOPIC] == [LATCHED]


def test_a_damaged_part_of_the_recording_costs_that_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    writer = Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    noise = np.random.default_rng(0)
    with writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for number in range(5):  # each fills a chunk
            pixels = noise.integers(0, 256, (600, 600, 3), np.uint8)
            message = image_message(pixels, stamp_ns=BEGIN_NS + number * STEP_NS)
            writer.write(camera, BEGIN_NS + number * STEP_NS, STORE.serialize_cdr(message, IMAGE))
    file = tmp_path / "in" / "in.mcap"
    content = bytearray(file.read_bytes())
    frames = [match.start() for match in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), content)]
    content[frames[2] + 4 : frames[2] + 40] = b"\xff" * 36
    file.write_bytes(content)
    command = ["bag", str(file), "--query", "the ring", "--out", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert (figures["frames"], figures["found"]) == (4, 4)
    (note,) = figures["notes"]
    assert f"note: {note}\n" in printed.err
    assert "in.mcap is damaged" in note
    assert note.endswith("-o repaired.mcap; without that, what is in a chunk of it is left out")
    stamps = [result["stamp_ns"] for result in told(tmp_path / "out")]
    assert stamps == [BEGIN_NS + number * STEP_NS for number in (0, 1, 3, 4)]


def test_results_of_images_behind_damage_in_other_topics_are_kept(tmp_path: Path) -> None:
    odd = (BEGIN_NS + 1, "/odd", TEXT, TYPES[TEXT](data="x"))
    bag = write_messages(tmp_path / "in", [image(0), odd, image(1), image(2)], storage="SQLITE3")
    with sqlite3.connect(bag / "in.db3") as base:
        base.execute("UPDATE messages SET data = 7 WHERE topic_id = 2")
    base.close()
    with open_job(bag, None, "the ring", tmp_path / "out") as job:
        assert job.run(session()).frames == 3
        (note,) = job.recording.notes
    assert "in.db3 cannot be read (a damaged message); if its recorder was killed, repair it: sqlite3" in note
    assert [result["stamp_ns"] for result in told(tmp_path / "out")] == [BEGIN_NS + n * STEP_NS for n in range(3)]
    assert [name for name, _, _ in read_raw(tmp_path / "out")].count(TOPIC) == 1


def test_a_recording_that_is_damaged_before_its_first_image_is_refused(tmp_path: Path) -> None:
    bag = write_messages(tmp_path / "in", [image(0), image(1)], storage="SQLITE3")
    with sqlite3.connect(bag / "in.db3") as base:
        base.execute("UPDATE messages SET data = 7")
    base.close()
    with pytest.raises(UsageError, match=r"none of the images on .* can be read: .*in\.db3 cannot be read"):
        process_bag(session(), bag, None, "the ring", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_message_whose_compression_is_damaged_costs_itself_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for number in range(3):
            data = zstandard.compress(bytes(STORE.serialize_cdr(image(number)[3], IMAGE)))
            writer.write(camera, BEGIN_NS + number, data[:8] + bytes(len(data) - 8) if number == 1 else data)
    report = process_bag(session(), tmp_path / "in", None, "the ring", tmp_path / "out")
    assert (report.frames, report.unreadable, report.found) == (3, 1, 2)


def test_times_that_ros_cannot_hold_end_no_run(tmp_path: Path) -> None:
    late = 2**31 * 10**9
    bag = write_messages(tmp_path / "in", [(late + 5, TOPIC, IMAGE, b"\0\1\0\0"), (late + 9, *image(0)[1:])])
    process_bag(session(), bag, None, "the ring", tmp_path / "out")
    masks = [STORE.deserialize_cdr(data, IMAGE) for name, _, data in read_raw(tmp_path / "out") if name == MASKS]
    assert [mask.header.stamp.sec for mask in masks] == [2**31 - 1, BEGIN_NS // 10**9]
    assert [result["stamp_ns"] for result in told(tmp_path / "out")] == [late + 5, BEGIN_NS]


def test_a_log_of_another_recording_of_that_name_is_not_used(tmp_path: Path) -> None:
    one = write_messages(tmp_path / "one" / "in", [image(0), image(1)])
    other = write_messages(tmp_path / "other" / "in", [image(5), image(6)])
    out = tmp_path / "out"

    def fail(frame: Frame, _: object) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        process_bag(session(), one, None, "the ring", out, observe=fail)
    with pytest.raises(UsageError, match=r"out.log was made with other settings \(recording_sha256"):
        process_bag(session(), other, None, "the ring", out, resume=True)
    assert not out.exists()


def test_what_rosbag2_cannot_hold_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    (tmp_path / "in").mkdir()
    with RecordingWriter(tmp_path / "in", "in", "mcap") as writer:
        camera = writer.add(Channel(0, TOPIC, IMAGE, "cdr", 0))
        others = [
            writer.add(Channel(0, "/odometry", "x.Odometry", "protobuf", 0, "\x0a\x00", "protobuf")),
            writer.add(Channel(0, "/old", "std_msgs/String", "ros1", 0, "string data", "ros1msg")),
            writer.add(Channel(0, "/view", "foxglove.CompressedImage", "json", 0, "{}", "jsonschema")),
        ]
        writer.write(camera, BEGIN_NS, STORE.serialize_cdr(image(0)[3], IMAGE))
        for channel in others:
            writer.write(channel, BEGIN_NS, b"{}")
    file = tmp_path / "in" / "in.mcap"
    assert main(["bag", str(file), "--query", "the ring", "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    left = "/odometry (protobuf), /old (ros1), /view (json)"
    assert f"note: not copied, since a rosbag2 holds only messages in CDR: {left}\n" in printed.err
    assert set(read_bag(tmp_path / "out")) == {TOPIC, MASKS, FOUND, TOLD}
    command = ["bag", str(file), "--query", "the ring", "--out", str(tmp_path / "more"), "--topic", "/view"]
    assert main(command) == 2
    assert "/view has foxglove.CompressedImage in json, which is not read" in capsys.readouterr().err


def jpeg(number: int, keep: float = 1.0) -> tuple[int, str, str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(buffer, "JPEG")
    data = np.frombuffer(buffer.getvalue()[: int(keep * buffer.tell())], np.uint8)
    stamp_ns = BEGIN_NS + number * STEP_NS
    return stamp_ns, TOPIC, COMPRESSED, TYPES[COMPRESSED](header=header_message(stamp_ns), format="jpeg", data=data)


NOTHING = np.zeros(0, np.uint8)
EMPTY = {"width": 0, "height": 0, "step": 0, "encoding": "", "data": NOTHING}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([jpeg(0), jpeg(1), jpeg(2, keep=0.5), jpeg(3)], "damaged or cut short"),
        ([jpeg(0), jpeg(1), jpeg(2, keep=0.0), jpeg(3)], "is empty"),
        ([image(0), image(1), image(2, **EMPTY), image(3)], "without an encoding"),
        ([image(0), image(1), image(2, encoding="rgb9"), image(3)], "encoded as rgb9"),
        ([image(0), image(1), image(2, data=NOTHING), image(3)], "has 0 bytes"),
        ([image(0), image(1), image(2, step=30), image(3)], "30 bytes per row"),
        ([image(0), image(1), image(2, width=2**31, height=2**31, step=2**31), image(3)], "at most 25 million"),
        ([image(0), image(1), (BEGIN_NS + 2 * STEP_NS, TOPIC, IMAGE, b"\0\1\0\0abc"), image(3)], "a damaged message"),
    ],
)
def test_an_image_that_cannot_be_read_has_a_result_with_its_reason(
    messages: list[Any], reason: str, tmp_path: Path
) -> None:
    bag, out = write_messages(tmp_path / "in", messages), tmp_path / "out"
    seen: list[int] = []
    report = process_bag(session(), bag, None, "the ring", out, observe=lambda frame, _: seen.append(frame.stamp_ns))
    assert (report.frames, report.found, report.unreadable) == (4, 3, 1)
    assert reason in (report.reason or "")
    stamps = [BEGIN_NS + number * STEP_NS for number in range(4)]
    assert seen == [*stamps[:2], stamps[3]]
    results = told(out)
    assert [result["stamp_ns"] for result in results] == stamps
    assert [result["reason"] is None for result in results] == [True, True, False, True]
    assert reason in results[2]["reason"]
    masks = [STORE.deserialize_cdr(data, IMAGE) for name, _, data in read_raw(out) if name == MASKS]
    assert [stamp_of(mask.header) for mask in masks] == stamps
    assert (masks[2].width, masks[2].height, len(masks[2].data)) == (0, 0, 0)
    assert report.replay is not None
    assert report.replay.rate_hz == pytest.approx(30.0, rel=1e-3)  # of the camera, the unreadable image included
    assert (report.replay.grounded, report.replay.dropped) == ((0, 1, 3), 0)


def test_a_run_that_was_killed_after_an_unreadable_image_is_resumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bag, out = write_messages(tmp_path / "in", [image(0, **EMPTY), image(1), image(2)]), tmp_path / "out"
    broken = session()

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(broken, "segment", fail)
        with pytest.raises(RuntimeError):
            process_bag(broken, bag, None, "the ring", out)
    report = process_bag(session(), bag, None, "the ring", out, resume=True)
    assert (report.frames, report.reused, report.unreadable, report.found) == (3, 1, 1, 2)


def test_a_dark_image_is_as_dark_after_a_resumed_run(tmp_path: Path) -> None:
    values = [4080, 160, 160]
    messages = [
        (
            BEGIN_NS + n,
            TOPIC,
            IMAGE,
            image_message(np.full((20, 30), value, np.uint16), "mono16", stamp_ns=BEGIN_NS + n),
        )
        for n, value in enumerate(values)
    ]
    bag, out = write_messages(tmp_path / "in", messages), tmp_path / "out"
    seen: list[int] = []

    def observe(frame: Frame, _: object) -> None:
        seen.append(int(frame.image.max()))
        if len(seen) == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        process_bag(session(), bag, None, "the ring", out, observe=observe)
    report = process_bag(session(), bag, None, "the ring", out, observe=observe, resume=True)
    assert seen == [255, 10, 10]
    assert (report.reused, report.bits) == (2, 12)


def test_a_bag_without_a_readable_image_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    bag = write_messages(tmp_path / "in", [image(number, encoding="64FC7") for number in range(3)])
    with pytest.raises(
        UsageError, match=rf"none of the images on {TOPIC} can be read: .* encoded as 64FC7; convert them"
    ):
        process_bag(session(), bag, None, "the ring", tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {"in"}


def test_unreadable_images_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    bag = write_messages(tmp_path / "in", [image(0, **EMPTY), image(1), image(2)])
    command = ["bag", str(bag), "--query", "the ring", "--report", str(tmp_path / "page.html"), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    assert "could not be read: 1, the first because" in capsys.readouterr().out
    assert "could not be read" in (tmp_path / "page.html").read_text()


NOW = [BEGIN_NS + number * 10**9 for number in range(6)]


@pytest.mark.parametrize("times", [NOW, [BEGIN_NS] * 6])
def test_stamps_of_0_are_said(
    times: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake_session.install(monkeypatch)
    bag = write_messages(tmp_path / "in", [(ns, TOPIC, IMAGE, image_message(PIXELS, stamp_ns=0)) for ns in times])
    command = ["bag", str(bag), "--query", "the ring", "--report", str(tmp_path / "page.html"), "--force", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "times: the images' stamps do not ascend" in printed
    assert ("live at 1.0 Hz: 6 of 6" in printed) is (times == NOW)
    assert "the images&#x27; stamps do not ascend" in (tmp_path / "page.html").read_text()
    assert main([*command, str(tmp_path / "more"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["rate_hz"] == (pytest.approx(1.0) if times == NOW else None)
    assert figures["dropped"] == (0 if times == NOW else None)
    assert [result["stamp_ns"] for result in told(tmp_path / "out")] == [0] * 6  # as the camera has them


def test_a_bag_of_results_is_asked_again(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    process_bag(session(), write_bag(tmp_path / "in", 3), None, "the ring", first)
    with open_job(first, None, "the star", second) as job:
        assert job.plan.notes[0].startswith("the recording has results already; the new ones are on /wise_edge_2/mask")
        assert job.run(session()).topics == ("/wise_edge_2/mask", "/wise_edge_2/detections", "/wise_edge_2/result")
    assert [result["query"] for result in told(second)] == ["the ring"] * 3
    assert [result["query"] for result in told(second, "/wise_edge_2/result")] == ["the star"] * 3
    process_bag(session(), second, None, "the bar", third, copy=False)
    assert set(read_bag(third)) == {MASKS, FOUND, TOLD}
