"""Memories follow objects as transformers' own video models do, frame by frame; EdgeTAM's graphs one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specs import POLICY
from tiny_video_models import VIDEOS, make_frames, make_video_model
from video_reference import StockVideo
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.roles import mask_graphs
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.export.to_tensorrt.plan import find_ranges
from wise_edge.runtimes.base import MaskPrompt, RememberedMask
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.torch_mask import TorchSam2
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.spec import MOST_PROMPTS
from wise_edge.sam.video.checkpoint import load_video
from wise_edge.sam.video.memory import MOST_OBJECTS

PROMPTS: dict[int, dict[int, MaskPrompt]] = {
    0: {1: MaskPrompt((4, 20, 26, 42)), 2: MaskPrompt((46, 30, 62, 42), ((54, 36),))},
    9: {1: MaskPrompt((13, 20, 35, 42), ((24, 31),))},
    14: {3: MaskPrompt(None, ((54, 10),))},
}
"""Two objects from the beginning, one of which is corrected, and a third that a point alone marks, by frame."""
Opened = dict[str, Callable[[], Any]]


@pytest.fixture(scope="module", params=VIDEOS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make_video_model(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    source = SamSource(checkpoint)
    artifacts = source.export(folder, "fp32", False, [], lambda *_: None)
    assert [artifact.role for artifact in artifacts] == [
        "sam.encoder", "sam.decoder", "sam.memory_attention", "sam.memory_encoder",
    ]  # fmt: skip
    figures = source.compare(folder, "fp32", False, lambda *_: None)
    assert [figure.what for figure in figures[-3:]] == [
        "sam.decoder, 2 followed objects", "sam.memory_encoder, 3 objects", "sam.memory_attention, 1, 3 and 8 frames",
    ]  # fmt: skip
    assert all(figure.passed for figure in figures)
    assert all(figure.value <= 1e-5 for figure in figures[-3:])
    return folder


def open_graphs(checkpoint: Path, graphs: Path) -> GraphMask:
    def opener(role: str) -> OnnxGraph:
        return OnnxGraph(graphs / f"{role}.onnx", threads=1)

    return GraphMask("onnx", read_sam_spec(checkpoint), opener("sam.encoder"), opener("sam.decoder"), opener)


def follow(backend: Any, count: int) -> list[dict[int, RememberedMask]]:
    """Return all masks on each frame; on every second one objects are followed before others are prompted."""
    memory, found = backend.open_memory(), []
    for time, frame in enumerate(make_frames(count)):
        encoded, prompts = backend.encode(frame), PROMPTS.get(time, {})
        if time % 2:
            memory.prompt(encoded, prompts)
            found.append(memory.follow(encoded))
        else:
            found.append((memory.follow(encoded) if time else {}) | memory.prompt(encoded, prompts))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "graphs"])
def test_thirty_frames_equal_transformers(checkpoint: Path, kind: str, request: pytest.FixtureRequest) -> None:
    stock = StockVideo(load_video(checkpoint))
    if kind == "torch":
        backend: Any = TorchSam2(checkpoint)
    else:
        backend = open_graphs(checkpoint, request.getfixturevalue("graphs"))
    found = follow(backend, 30)
    hidden = areas = 0.0
    for time, frame in enumerate(make_frames(30)):
        expected = stock.run(frame, time, PROMPTS.get(time, {}))
        assert sorted(expected) == sorted(found[time])
        for number, (logits, score) in expected.items():
            ours = found[time][number]
            assert ours.object_score == pytest.approx(score, abs=1e-3), (time, number)
            np.testing.assert_allclose(ours.logits, logits, atol=1e-3, err_msg=f"frame {time}, object {number}")
            assert ours.mask.shape == frame.shape[:2]
            assert ours.visible is (score > 0)
            hidden += score <= 0
            areas += 0.01 < ours.mask.mean() < 0.99
    assert hidden >= 2  # an object disappears
    assert areas >= 20  # masks are neither empty nor full


@pytest.mark.slow
def test_more_objects_than_a_call_takes_are_what_each_is_alone(
    checkpoint: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_graphs(checkpoint, graphs)
    first, *others = [backend.encode(frame) for frame in make_frames(3)]
    prompts = {number: MaskPrompt((6 * number, 20, 22 + 6 * number, 42)) for number in range(1, 7)}

    def run(prompts: dict[int, MaskPrompt]) -> list[dict[int, RememberedMask]]:
        memory = backend.open_memory()
        return [memory.prompt(first, prompts), *(memory.follow(frame) for frame in others)]

    alone = [run({number: prompt}) for number, prompt in prompts.items()]
    graph, sizes = backend._memory_graphs[0], []
    recall = graph.run
    monkeypatch.setattr(graph, "run", lambda inputs: sizes.append(len(inputs["memory"])) or recall(inputs))
    for time, found in enumerate(run(prompts)):
        assert list(found) == list(prompts)
        for each in alone:
            ((number, expected),) = each[time].items()
            np.testing.assert_allclose(found[number].logits, expected.logits, atol=1e-3, err_msg=f"{number} at {time}")
            assert found[number].object_score == pytest.approx(expected.object_score, abs=1e-3)
    assert sizes == [MOST_OBJECTS, len(prompts) - MOST_OBJECTS] * len(others)


@pytest.mark.slow
def test_objects_are_followed_in_half_precision(tmp_path: Path) -> None:
    make_video_model("sam2").save_pretrained(tmp_path / "model")
    (tmp_path / "fp16").mkdir()
    source = SamSource(tmp_path / "model")
    artifacts = source.export(tmp_path / "fp16", "fp16", False, read_calibration(None, 2), lambda *_: None)
    assert {artifact.precision for artifact in artifacts} == {"fp16"}
    ours, stock = open_graphs(tmp_path / "model", tmp_path / "fp16"), TorchSam2(tmp_path / "model")
    overlap = area = 0
    for found, expected in zip(follow(ours, 9), follow(stock, 9), strict=True):
        overlap += (found[2].mask & expected[2].mask).sum()
        area += (found[2].mask | expected[2].mask).sum()
    assert overlap / area > 0.9


@pytest.mark.slow
def test_the_graphs_become_engines_ahead_of_time(graphs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    kinds = parse_gpu_kinds("sm89,sm120")
    for role in mask_graphs(memory=True)[1:]:
        file = graphs / f"{role}.onnx"
        ranges = find_ranges(file, POLICY)
        request = EngineRequest(role, file, "source", ranges, kinds)
        sidecar = build_engine(request, tmp_path / f"{role}.engine", lambda _: None)
        most = MOST_PROMPTS if role == "sam.decoder" else MOST_OBJECTS
        rows = {name: shapes.largest[0] for name, shapes in sidecar.ranges.items()}
        assert rows == {name: most if name in ranges else 1 for name in rows}
        assert len(ranges) >= 3
