"""Loaders of what robots and clients send: recordings, messages, dataflows' inputs, and requests of the service."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import rosbags.rosbag1
import zstandard
from oracle import Fault
from starlette.testclient import TestClient
from workers import Loader

import fake_dora
from bag_writing import TOPIC, write_bag
from fake_session import FakeMask, FakePolicy
from gated_service import gated_session
from ros_types import STORE, image_message
from service_client import png
from wise_edge.errors import UsageError
from wise_edge.images.depth import StreamDepth
from wise_edge.robot import bags, dora
from wise_edge.robot.bag_files import Deserializer, choose_images, plan_copy
from wise_edge.robot.messages import IMAGE, READ, decode_depth, to_frame, to_intrinsics
from wise_edge.robot.recording.reader import open_recording
from wise_edge.runtimes.session import Session
from wise_edge.service.app import make_app
from wise_edge.service.limits import Limits

_FORM = b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
_LIMITS = Limits(pixels=1_000_000, body_bytes=1_000_000)


def _write_compressed(folder: Path) -> None:
    write_bag(folder / "bag", 3)
    for file in (folder / "bag").glob("*.mcap"):
        file.with_name(f"{file.name}.zstd").write_bytes(zstandard.compress(file.read_bytes()))
        file.unlink()


def _write_ros1(folder: Path) -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    with rosbags.rosbag1.Writer(folder / "a.bag") as writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=store)
        for number in range(3):
            ros2 = image_message(np.full((12, 16, 3), number, np.uint8))
            header = store.types["std_msgs/msg/Header"](
                seq=number, stamp=ros2.header.stamp, frame_id=ros2.header.frame_id
            )
            fields = {
                name: getattr(ros2, name) for name in ("height", "width", "encoding", "is_bigendian", "step", "data")
            }
            message = store.types[IMAGE](header=header, **fields)
            writer.write(camera, 1_000 + number, store.serialize_ros1(message, IMAGE))


def _read_recording(path: Path) -> None:
    """Read all images of a recording, as `wise-edge bag` does."""
    deserializer = Deserializer()
    with open_recording(path) as recording:
        images = choose_images(recording, path, None)
        plan_copy(recording, images, True)
        refused, depth = None, StreamDepth()
        for _, channel, data in recording.messages(images):
            try:
                to_frame(deserializer.read(channel, data), channel.topic, depth)
            except UsageError as error:
                refused = error
        for note in recording.notes:
            if len(note.splitlines()) != 1:
                raise Fault(f"a note of several lines: {note}")
    if refused is not None:
        raise refused


def _session() -> Session:
    return Session(FakePolicy(), FakeMask(), {})


def _write_unfinished(folder: Path) -> None:
    """Write a bag and the log of a run on it that was killed after two images."""
    write_bag(folder / "bag", 3)

    class Killed(Exception):
        pass

    def kill(done: int, _: int) -> None:
        if done == 2:
            raise Killed

    try:
        bags.process_bag(_session(), folder / "bag", None, "the mug", folder / "out", progress=kill)
    except Killed:
        shutil.rmtree(folder / "out", ignore_errors=True)
    (log,) = folder.glob("out*log*")
    log.rename(folder / "log.jsonl")


def _resume_bag(folder: Path) -> None:
    (folder / "log.jsonl").rename(folder / "out.log")
    try:
        bags.process_bag(_session(), folder / "bag", None, "the mug", folder / "out", resume=True)
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


def _process_bag(folder: Path) -> None:
    try:
        bags.process_bag(_session(), folder / "bag", None, "the mug", folder / "out")
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out.log").unlink(missing_ok=True)


def _write_cdr(folder: Path) -> None:
    for encoding, shape, kind in (("rgb8", (6, 8, 3), np.uint8), ("mono16", (6, 8), np.uint16)):
        message = image_message(np.arange(np.prod(shape)).reshape(shape).astype(kind), encoding)
        (folder / f"{encoding}.cdr").write_bytes(STORE.serialize_cdr(message, IMAGE))


def _read_cdr(folder: Path) -> None:
    channel: Any = SimpleNamespace(topic="/camera", type=IMAGE, encoding="cdr")
    for file in sorted(folder.glob("*.cdr")):
        to_frame(Deserializer().read(channel, file.read_bytes()), "/camera")


def _write_messages(folder: Path) -> None:
    for encoding in READ:
        wide = 2 * (1 + ("16" in encoding)) * 4
        message = {"encoding": encoding, "height": 4, "width": 6, "step": 6 * wide, "is_bigendian": 0}
        message |= {"sec": 1, "nanosec": 2, "frame_id": "camera", "bytes": 12 * 6 * wide}
        (folder / f"{encoding}.json").write_text(json.dumps(message))
    compressed = {
        "format": "rgb8; png compressed bgr8",
        "data": base64.b64encode(png(8, 6)).decode(),
        "sec": 1,
        "nanosec": 2,
    }
    (folder / "compressed.json").write_text(json.dumps(compressed))
    (folder / "info.json").write_text(json.dumps({"p": [500.0, 0, 320, 0, 0, 500, 240, 0, 0, 0, 1, 0]}))


def _uint(value: Any, bits: int = 32) -> int:
    """Return a number as a field of a message holds it."""
    try:
        return int(value) % (1 << bits)
    except (TypeError, ValueError, OverflowError):
        return 0


def _read_messages(folder: Path) -> None:
    for file in sorted(folder.glob("*.json")):
        try:
            found = json.loads(file.read_text())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            _read_message(found)


def _read_message(found: dict[str, Any]) -> None:
    get = found.get
    stamp = SimpleNamespace(sec=_uint(get("sec"), 31), nanosec=_uint(get("nanosec")))
    header = SimpleNamespace(stamp=stamp, frame_id=str(get("frame_id")))
    if "p" in found:
        values = [
            value if type(value) in (int, float) else 0.0
            for value in (found["p"] if isinstance(found["p"], list) else [])
        ]
        clipped = [float(min(max(value, -1e308), 1e308)) if value == value else value for value in values]
        to_intrinsics(SimpleNamespace(p=(clipped + [0.0] * 12)[:12]))
    elif "format" in found:
        try:
            data = base64.b64decode(str(get("data")).encode("ascii", "replace"))
        except ValueError:
            data = b""
        to_frame(SimpleNamespace(header=header, format=str(found["format"]), data=data), "/camera")
    else:
        fields: dict[str, Any] = {name: _uint(get(name)) for name in ("height", "width", "step", "is_bigendian")}
        data = bytes(min(_uint(get("bytes")), 10_000_000))
        message = SimpleNamespace(header=header, encoding=str(get("encoding")), data=data, **fields)
        _accept_refusal(lambda: decode_depth(SimpleNamespace(**(vars(message) | {"encoding": "16UC1"})), "/depth"))
        to_frame(message, "/camera")


def _accept_refusal(work: Callable[[], object]) -> None:
    try:
        work()
    except UsageError:
        return


def _write_inputs(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps(fake_dora.METADATA))
    (folder / "values.json").write_text(json.dumps({"query": ["the mug"], "enable": [True], "ask": ["the bowl"]}))


def _read_inputs(folder: Path) -> None:
    refused = None
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        values = json.loads((folder / "values.json").read_text())
    except (ValueError, RecursionError):
        return
    try:
        dora.to_frame(fake_dora.image() | {"metadata": metadata if isinstance(metadata, dict) else {}})
    except UsageError as error:
        refused = error
    for name, value in values.items() if isinstance(values, dict) else ():
        try:
            array = pyarrow.array(value if isinstance(value, list) else [value])
        except (pyarrow.ArrowException, OverflowError, TypeError, ValueError, UnicodeError, RecursionError):
            continue
        event = {"type": "INPUT", "id": name, "value": array, "metadata": {}}
        kind = bool if name == "enable" else str
        try:
            dora._value(event, kind)
        except UsageError as error:
            refused = error
    if refused is not None:
        raise refused


def _write_requests(folder: Path) -> None:
    fields = [_FORM % (b"image", b'; filename="a.png"', png()), _FORM % (b"query", b"", b"the ring")]
    fields += [_FORM % (b"variant", b"", b"wise-s"), _FORM % (b"mask", b"", b"rle")]
    (folder / "form.raw").write_bytes(b"".join(fields) + b"--b--\r\n")
    (folder / "ask.json").write_text(
        json.dumps({"query": "the ring", "variant": "answer", "mask": "png", "energy": False})
    )
    headers = {"content-type": "multipart/form-data; boundary=b", "accept": "*/*", "x-forwarded-for": "1.2.3.4"}
    (folder / "headers.json").write_text(json.dumps(headers))


@cache
def _client() -> TestClient:
    """Return the client of a worker's own service."""
    session, _ = gated_session()
    client = TestClient(make_app(session, _LIMITS), base_url="http://127.0.0.1", raise_server_exceptions=False)
    client.__enter__()
    return client


@cache
def _frame() -> str:
    return str(_client().post("/v1/frames", files={"image": ("a.png", png())}).json()["frame"])


def _read_requests(folder: Path) -> None:
    form = {"content-type": "multipart/form-data; boundary=b"}
    try:
        found = json.loads((folder / "headers.json").read_text())
        headers = form | {
            name: value.encode("latin-1")
            for name, value in found.items()
            if isinstance(value, str) and value.isprintable() and name.isascii() and name.isprintable() and name
        }
    except (ValueError, RecursionError, AttributeError):
        headers = form
    client = _client()
    answers = [
        client.post("/v1/segment", content=(folder / "form.raw").read_bytes(), headers=headers),
        client.post(
            f"/v1/frames/{_frame()}/segment",
            content=(folder / "ask.json").read_bytes(),
            headers={"content-type": "application/json"},
        ),
    ]
    for answer in answers:
        if answer.status_code >= 500 and answer.status_code != 503:
            raise Fault(f"status {answer.status_code}: {answer.text[:300]}")
        if answer.status_code >= 400:
            line = answer.json()["error"]
            if len(line.splitlines()) != 1 or len(line) > 4000:
                raise Fault(f"status {answer.status_code} with {len(line)} characters: {line[:300]!r}")
    if refused := [answer for answer in answers if answer.status_code >= 400]:
        raise UsageError(refused[0].json()["error"])


LOADERS = (
    Loader("bag, MCAP", lambda f: write_bag(f / "bag", 3), lambda f: _read_recording(f / "bag"), "bag/*", share=2.0),
    Loader(
        "bag, SQLite",
        lambda f: write_bag(f / "bag", 3, storage="SQLITE3"),
        lambda f: _read_recording(f / "bag"),
        "bag/*",
        share=2.0,
    ),
    Loader("bag, ROS 1", _write_ros1, lambda f: _read_recording(f / "a.bag"), "*.bag", share=3.0),
    Loader("bag, packed", _write_compressed, lambda f: _read_recording(f / "bag"), "bag/*.zstd", share=1.0),
    Loader(
        "bag, metadata", lambda f: write_bag(f / "bag", 2), lambda f: _read_recording(f / "bag"), "*.yaml", share=0.2
    ),
    Loader("bag, processed", lambda f: write_bag(f / "bag", 2), _process_bag, "bag/*", share=0.05),
    Loader("bag, resumed", _write_unfinished, _resume_bag, "log.jsonl", share=0.2),
    Loader("message, serialized", _write_cdr, _read_cdr, "*", share=1.0),
    Loader("messages", _write_messages, _read_messages, "*", share=2.0),
    Loader("inputs of dora", _write_inputs, _read_inputs, "*", share=2.0),
    Loader("service", _write_requests, _read_requests, "*", share=0.5),
)
