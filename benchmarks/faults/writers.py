"""The commands that write, in pairs that tell their results apart, and what of a target does not depend on times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Writer:
    """A command that writes, twice.

    Attributes:
        name: unique.
        commands: arguments of the first and of the second, which write the same place; PORT is a free port.
        read: returns what of the target, in the folder, does not depend on times; raises if it is torn.
        make: prepares the folder.
        codes: exit codes of the one that is refused.
        meanwhile: pattern of its line while the other runs.
        afterwards: pattern of its line once the other has ended.
        replaces: whether the second may follow and replace or continue what the first made.
        serves: whether it runs until it is stopped.
        share: of the repetitions; less for slow commands.
    """

    name: str
    commands: tuple[list[str], list[str]]
    read: Callable[[Path], Any]
    make: Callable[[Path], Any] = lambda folder: None
    codes: tuple[int, ...] = (2,)
    meanwhile: str = "is being written by another process|appeared meanwhile"
    afterwards: str = "exists; use --|exists; name another|holds (a training run|results of an unfinished run)"
    replaces: bool = False
    serves: bool = False
    share: float = 1.0


def _records(folder: Path) -> list[Any]:
    from wise_edge.evaluation.record_log import read_log

    settings, records = read_log(folder / "r.jsonl")
    assert len(records) == settings.samples
    lines = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "latency_ms"} for line in lines]


def _half_of_records(folder: Path) -> None:
    """Leave what a run of the first command that was killed leaves."""
    from contextlib import redirect_stdout
    from io import StringIO

    from wise_edge.cli.main import main

    made = folder.parent / "whole.jsonl"
    if not made.exists():
        with redirect_stdout(StringIO()):
            assert main([*_EVALUATE, "--variant", "answer", "--out", str(made)]) == 0
    lines = made.read_text().splitlines(keepends=True)
    (folder / "r.jsonl").write_text("".join(lines[:3]) + lines[3][:30])


def _images(folder: Path) -> Any:
    with Image.open(folder / "overlay.png") as overlay:
        overlay.load()
        size = overlay.size
    with Image.open(folder / "mask.png") as mask:
        return size, np.asarray(mask).tobytes()


def _scene(folder: Path) -> None:
    from wise_edge.images import save_png
    from wise_edge.scenes import sample

    save_png(sample("test", 0).scene.image, folder / "scene.png")


def make_bag(folder: Path, images: int = 6) -> None:
    """Record scenes as the bag `in`."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from wise_edge.scenes import sample

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    kind = "sensor_msgs/msg/Image"
    with Writer(folder / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/camera", kind, typestore=store)
        for number in range(images):
            pixels = sample("test", number).scene.image
            height, width, _ = pixels.shape
            stamp = types["builtin_interfaces/msg/Time"](sec=100, nanosec=number * 33_000_000)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            message = types[kind](header, height, width, "rgb8", 0, 3 * width, pixels.ravel())
            writer.write(camera, 100_000_000_000 + number * 33_000_000, store.serialize_cdr(message, kind))


def read_results(folder: Path) -> list[Any]:
    """Return the messages of the bag `out` without the times that a result took; raises if it is torn."""
    from rosbags.highlevel import AnyReader

    found: list[Any] = []
    with AnyReader([folder / "out"]) as reader:
        for connection, time_ns, data in reader.messages():
            content: Any = data
            if connection.topic == "/wise_edge/result":
                told = json.loads(reader.deserialize(data, connection.msgtype).data)
                content = {name: value for name, value in told.items() if name not in ("latency_ms", "delay_ms")}
            found.append((connection.topic, time_ns, content))
    return found


def _profile(folder: Path) -> Any:
    document = json.loads((folder / "report.json").read_text())
    return [(run["variant"], run["policy"]) if "policy" in run else run["variant"] for run in document["runs"]]


def _bundle(folder: Path) -> Any:
    from wise_edge.bundle.store import load

    bundle = load(folder / "bundle", verify_hashes=True)
    assert bundle.unlisted_files() == []
    return [(artifact.role, artifact.sha256) for artifact in bundle.manifest.artifacts]


def _demo(folder: Path) -> list[Any]:
    sizes = []
    for file in sorted((folder / "out").iterdir()):
        with Image.open(file) as image:
            image.load()
            sizes.append((file.name, image.size))
    return sizes


def _training(folder: Path) -> Any:
    import safetensors.numpy

    weights = safetensors.numpy.load_file(next((folder / "out").rglob("model.safetensors")))
    steps = [json.loads(line)["step"] for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    return steps, {name: values.tobytes() for name, values in weights.items()}


_EVALUATE = ["evaluate", "--limit", "6"]
_RUN = ["run", "scene.png", "--mask", "mask.png", "--overlay", "overlay.png"]
_BAG = ["bag", "in", "--out", "out", "--results-only", "--query"]
_PROFILE = ["profile", "--scenes", "1", "--window", "0.1", "--out", "report.json", "--variants"]
_EXPORT = ["export", "--policy", "embedded", "--sam", "embedded", "--no-verify", "--out", "bundle"]
_STEPS = [
    "steps=3",
    "log_every=1",
    "decay_steps=1",
    "warmup_steps=1",
    "validate_every=3",
    "final_scenes=1",
    "validate_scenes=1",
]
_TRAIN = ["train", "--recipe", "embedded-sam-smoke", "--out", "out"]
_TRAIN += [part for setting in _STEPS for part in ("--set", setting)]

WRITERS = [
    Writer("run", ([*_RUN, "the red ring"], [*_RUN, "the leftmost shape"]), _images, _scene),
    Writer(
        "run --force",
        ([*_RUN, "the red ring", "--force"], [*_RUN, "the red ring", "--force"]),
        _images,
        _scene,
        replaces=True,
    ),
    Writer(
        "evaluate",
        tuple([*_EVALUATE, "--out", "r.jsonl", "--variant", variant] for variant in ("answer", "wise-s")),
        _records,
    ),
    Writer(
        "evaluate --force",
        tuple([*_EVALUATE, "--out", "r.jsonl", "--force", "--variant", variant] for variant in ("answer", "wise-s")),
        _records,
        replaces=True,
    ),
    Writer(
        "evaluate --resume",
        ([*_EVALUATE, "--out", "r.jsonl", "--resume", "--variant", "answer"],) * 2,
        _records,
        _half_of_records,
        replaces=True,
    ),
    Writer(
        "evaluate --shard",
        ([*_EVALUATE, "--out", "r.jsonl", "--shard", "0/1", "--variant", "answer"],) * 2,
        _records,
    ),
    Writer("bag", tuple([*_BAG, query] for query in ("the red ring", "the leftmost shape")), read_results, make_bag),
    Writer("demo", (["demo", "--out", "out", "--scenes", "1"],) * 2, _demo, replaces=True, share=0.5),
    Writer(
        "profile",
        tuple([*_PROFILE, variant] for variant in ("answer", "wise-s")),
        _profile,
        codes=(2, 4),
        meanwhile="another profile is running",
        share=0.5,
    ),
    Writer(
        "serve",
        (["serve", "--port", "PORT"], ["serve", "--port", "PORT", "--host", "localhost"]),
        lambda folder: None,
        codes=(4,),
        meanwhile="cannot listen on",
        serves=True,
    ),
    Writer("train", tuple([*_TRAIN, "--set", f"seed={seed}"] for seed in (1, 2)), _training, share=0.3),
    Writer(
        "export", ([*_EXPORT, "--onnx-precision", "fp32"], [*_EXPORT, "--onnx-precision", "fp16"]), _bundle, share=0.1
    ),
    Writer(
        "export --force",
        ([*_EXPORT, "--force", "--onnx-precision", "fp32"], [*_EXPORT, "--force", "--onnx-precision", "fp16"]),
        _bundle,
        lambda folder: shutil.copytree(_embedded(), folder / "bundle"),
        replaces=True,
        share=0.1,
    ),
]


def _embedded() -> Path:
    from wise_edge.bundle.store import resolve_bundle

    return resolve_bundle(None)
