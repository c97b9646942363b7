"""A bundle of a video model: its files are listed, planned and dispatched, and a session follows objects with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from tiny_video_models import make_frames, make_video_model
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.engines import BuildPlan
from wise_edge.bundle.roles import MEMORY_GRAPHS, PLAN_ROLE, engine_role, mask_graphs
from wise_edge.bundle.store import load
from wise_edge.cli.export import EndToEnd
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_tensorrt.target import add_engines
from wise_edge.runtimes.backends import find_backend
from wise_edge.runtimes.base import MaskPrompt, RememberedMask
from wise_edge.runtimes.dispatch import DeviceCapabilities
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import Stamped

GRAPHS = mask_graphs(memory=True)
PROMPTS = {1: MaskPrompt((4, 20, 26, 42)), 2: MaskPrompt((46, 30, 62, 42), ((54, 36),))}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "sam2"
    make_video_model("sam2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundles") / "video"
    check, options = EndToEnd(str(checkpoint), target), ExportOptions(samples=1)
    export_bundle("embedded", str(checkpoint), target, options, verify=check, progress=lambda *_: None)
    return target


def open_bundle(bundle: Path) -> Session:
    return Session.from_bundle(bundle, policy_backend="onnx", mask_backend="onnx", threads=1)


def follow(backend: GraphMask | Session, count: int) -> list[dict[int, RememberedMask]]:
    memory = backend.open_memory()
    encode = memory.encode if isinstance(backend, Session) else backend.encode
    first, *others = map(encode, make_frames(count))
    return [memory.prompt(first, PROMPTS), *map(memory.follow, others)]


@pytest.mark.slow
def test_its_graphs_are_listed_compared_and_hashed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load(bundle, verify_hashes=True).manifest
    assert manifest.schema_version == 6
    assert manifest.verified
    assert manifest.sam.memory is not None
    assert {*GRAPHS} < {artifact.role for artifact in manifest.artifacts}
    for role in MEMORY_GRAPHS:
        (figure,) = (each for each in manifest.verification if each.what.startswith(role))
        assert figure.value <= figure.at_most == 1e-4
    assert main(["bundle", "show", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert all(role in shown for role in GRAPHS)
    assert main(["bundle", "verify", str(bundle)]) == 0
    for role in MEMORY_GRAPHS:
        damaged = copytree(bundle, tmp_path / role)
        content = bytearray((damaged / f"{role}.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (damaged / f"{role}.onnx").write_bytes(content)
        assert main(["bundle", "verify", str(damaged)]) == 5
        assert f"{role}.onnx" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_session_follows_two_objects_as_torch_does(bundle: Path, checkpoint: Path) -> None:
    found = follow(open_bundle(bundle), 6)
    expected = follow(open_torch_mask(checkpoint), 6)
    for ours, torch in zip(found, expected, strict=True):
        assert list(ours) == list(torch) == [1, 2]
        for number, each in ours.items():
            np.testing.assert_allclose(each.logits, torch[number].logits, atol=1e-3)
            assert each.object_score == pytest.approx(torch[number].object_score, abs=1e-3)
            assert each.mask.shape == (64, 64)
    assert any(0.01 < each.mask.mean() < 0.99 for frame in found[1:] for each in frame.values())


@pytest.mark.slow
def test_a_session_tracks_with_the_memory(bundle: Path) -> None:
    (scene,) = read_calibration(None, 1)
    frames = [Stamped(scene.image, place / 10) for place in range(4)]
    results = list(open_bundle(bundle).track(frames, scene.query, memory=True, ground_every_s=10))
    assert len(results) == 4
    known = [{each.number for each in (*found.objects, *(found.hidden or ()))} for found in results]
    assert known[-1]
    assert all(numbers == known[-1] for numbers in known[-2:])


@pytest.mark.slow
def test_engines_are_planned_and_asked_for(bundle: Path, tmp_path: Path) -> None:
    folder = copytree(bundle, tmp_path / "bundle")
    add_engines(folder, parse_gpu_kinds("orin"), lambda *_: None)
    opened = load(folder, verify_hashes=True)
    ranges = {graph.graph: graph.ranges for graph in BuildPlan.read(opened.file(PLAN_ROLE)).graphs}
    assert {*GRAPHS} < {*ranges}
    grown = ranges["sam.decoder"]["image_embeddings"]
    assert (grown.smallest[0], grown.largest[0]) == (1, ranges["sam.decoder"]["point_coords"].largest[0])
    for role in MEMORY_GRAPHS:
        assert "image_embeddings" not in ranges[role]
        assert {(each.smallest[0], each.largest[0]) for each in ranges[role].values()} == {(1, 4)}


@pytest.mark.slow
def test_every_graph_needs_an_engine(bundle: Path) -> None:
    manifest, device = load(bundle).manifest, DeviceCapabilities((), gpu=(8, 7))
    check = find_backend("tensorrt").check_bundle
    assert check is not None
    engines = {
        role: replace(artifact, role=engine_role(role, "orin"), path=f"{role}.engine")
        for role in GRAPHS
        for artifact in manifest.artifacts
        if artifact.role == role
    }
    check(replace(manifest, artifacts=(*manifest.artifacts, *engines.values())), device, "mask")
    for role in GRAPHS:
        others = (engine for other, engine in engines.items() if other != role)
        with pytest.raises(DeviceError, match=rf"has no {role}\.engine\.orin for this GPU"):
            check(replace(manifest, artifacts=(*manifest.artifacts, *others)), device, "mask")


@pytest.mark.slow
def test_a_plan_counts_the_memory(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["setup", "embedded", str(checkpoint), "--device", "cpu", "--dry-run", "--json"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    parts = {part["name"]: part["bytes"] for part in json.loads(capsys.readouterr().out)["memory"]}
    weights = sum(values.numel() for values in make_video_model("sam2").parameters())
    assert parts["segmenter's weights"] >= 4 * weights
