"""Engines as a session runs them, on stand-ins for CUDA and TensorRT: calls, shapes, buffers and errors."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

import tensorrt_rtx as trt

from fake_tensorrt import Context, Counters, RuntimeCache, compile_cudart, make_package
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.roles import GRAPHS, engine_role
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.errors import BundleError, DeviceError, MissingExtraError, WiseEdgeError
from wise_edge.export.to_tensorrt.target import add_engines
from wise_edge.native import cuda
from wise_edge.runtimes.dispatch import DeviceCapabilities, list_candidates
from wise_edge.runtimes.graphs.tensorrt_engine import EngineRuntime
from wise_edge.runtimes.session import Session
from wise_edge.scenes import generate


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_cudart(tmp_path_factory.mktemp("cudart"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle with engines for SM89."""
    folder = copytree(resolve_bundle(EMBEDDED), tmp_path_factory.mktemp("engines") / "bundle")
    add_engines(folder, parse_gpu_kinds("sm89"), lambda step, share=None: None)
    return folder


@pytest.fixture
def gpu(library: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counters]:
    """A GPU of compute capability 8.9 with TensorRT for RTX of the version that built the engines."""
    opened = load(bundle)
    graphs = {opened.artifact(engine_role(graph, "rtx")).sha256: opened.file(graph) for graph in GRAPHS}
    counters = Counters(library)
    counters.set("capability", 89)
    counters.set("devices", 1)
    counters.set("allocations_left", -1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(cuda, "_libraries", lambda: iter([str(library)]))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_package("tensorrt_rtx", trt.__version__, graphs, counters))
    cuda.open_cuda.cache_clear()
    yield counters
    cuda.open_cuda.cache_clear()


def _open(bundle: Path, backend: str = "tensorrt") -> Session:
    return Session.from_bundle(bundle, policy_backend=backend, mask_backend=backend, verify_hashes=False)


def test_a_session_on_engines_answers_as_one_on_onnx_runtime(gpu: Counters, bundle: Path) -> None:
    session, reference = _open(bundle), _open(bundle, "onnx")
    for seed in range(3):
        scene = generate(seed)
        for query in scene.queries[:2]:
            got, expected = (s.segment(scene.image, query.text) for s in (session, reference))
            assert (got.text, got.box, got.points) == (expected.text, expected.box, expected.points)
            assert got.mask is not None
            assert expected.mask is not None
            assert (got.mask == expected.mask).all()
            assert got.score == pytest.approx(expected.score, abs=1e-5)


def test_engines_are_taken_by_themselves_where_they_fit(gpu: Counters, bundle: Path) -> None:
    session = _open(bundle, "auto")
    assert {choice.name for choice in session.choices.values()} == {"tensorrt"}
    assert "built for this GPU" in session.choices["policy"].reason


def test_keys_and_values_and_features_stay_on_the_gpu(gpu: Counters, bundle: Path) -> None:
    session = _open(bundle)
    scene = generate(0)
    session.segment(scene.image, scene.queries[0].text)
    before = {name: gpu.get(name) for name in ("to_host", "to_device")}
    result = session.segment(scene.image, scene.queries[1].text)
    steps = result.tokens.decode_steps + 1  # the query itself, and each step behind it
    logits, masks = 569 * 4, (4 * 64 * 64 + 4) * 4
    assert gpu.get("to_host") - before["to_host"] == steps * logits + masks
    tokens = result.tokens.prompt - result.tokens.image + result.tokens.rationale + result.tokens.answer + 100
    embeddings, positions, no_mask = 192 * 4, 3 * 8, 64 * 64 * 4
    assert gpu.get("to_device") - before["to_device"] < tokens * (embeddings + positions) + no_mask + 1000


def test_memory_is_asked_for_once(gpu: Counters, bundle: Path) -> None:
    session = _open(bundle)
    scenes = [generate(seed) for seed in range(8)]
    for scene in scenes[:4]:
        session.segment(scene.image, scene.queries[0].text, "verbose")
    before = gpu.get("allocations")
    for scene in scenes:
        session.segment(scene.image, scene.queries[0].text, "wise-s")
    assert gpu.get("allocations") == before


def test_all_memory_comes_back(gpu: Counters, bundle: Path) -> None:
    gc.collect()
    before = gpu.blocks, gpu.streams
    session = _open(bundle)
    scene = generate(0)
    session.segment(scene.image, scene.queries[0].text)
    assert gpu.blocks > before[0]
    assert gpu.streams == before[1] + 2  # one for the policy, one for the segmenter
    del session
    gc.collect()
    assert (gpu.blocks, gpu.streams) == before


def test_compiled_kernels_are_kept_for_the_next_process(
    gpu: Counters, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = tmp_path / "caches" / "wise-edge"

    def run() -> None:
        EngineRuntime(load(bundle)).open("sam.decoder").run(_prompt())
        gc.collect()

    run()
    (kept,) = caches.iterdir()
    assert kept.read_bytes() == b"k"
    kept.write_bytes(b"kk")
    run()
    assert kept.read_bytes() == b"kk"  # what is there is read, and not written again
    monkeypatch.setattr(RuntimeCache, "rejects", True)  # as those of another driver are
    run()
    assert kept.read_bytes() == b"k"
    kept.unlink()
    caches.rmdir()
    caches.write_text("no folder")
    run()  # a cache that cannot be written is no error


@pytest.fixture
def decoder(gpu: Counters, bundle: Path) -> Any:
    return EngineRuntime(load(bundle)).open("sam.decoder")


def _prompt(**changed: Any) -> dict[str, Any]:
    prompt = {
        "image_embeddings": np.zeros((1, 128, 16, 16), np.float32),
        "point_coords": np.zeros((1, 4, 2), np.float32),
        "point_labels": np.ones((1, 4), np.float32),
        "mask_input": np.zeros((1, 1, 64, 64), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    return {name: array for name, array in (prompt | changed).items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask_input": None}, "the input mask_input is missing"),
        ({"point_coords": np.zeros((1, 4, 2))}, "the input point_coords is float64, want float32"),
        (
            {"point_coords": np.zeros((1, 65, 2), np.float32)},
            r"has shape \[1, 65, 2\], the engine accepts \[1, 1, 2\] to",
        ),
        ({"point_coords": np.zeros((4, 2), np.float32)}, r"has shape \[4, 2\], the engine accepts"),
        ({"mask_input": np.zeros((1, 1, 32, 32), np.float32)}, r"has shape \[1, 1, 32, 32\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(decoder: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(WiseEdgeError, match=message):
        decoder.run(_prompt(**changed))
    assert decoder.run(_prompt())["low_res_masks"].shape == (1, 4, 64, 64)  # and what fits still runs


def test_a_run_that_fails_says_why(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "fails", True)
    with pytest.raises(WiseEdgeError, match=r"sam\.decoder\.rtx\.engine failed: Error Code 1: Cask"):
        decoder.run(_prompt())


def test_memory_that_runs_out_says_so_and_leaves_nothing(gpu: Counters, decoder: Any) -> None:
    gpu.set("allocations_left", 3)
    with pytest.raises(WiseEdgeError, match=r"cudaMalloc(Host)? failed: out of memory"):
        decoder.run(_prompt())
    gpu.set("allocations_left", -1)
    assert decoder.run(_prompt())["iou_predictions"].shape == (1, 4)


def test_an_engine_for_another_gpu_is_not_loaded(gpu: Counters, bundle: Path) -> None:
    gpu.set("capability", 86)
    with pytest.raises(
        DeviceError, match=r"compute capability 8\.9, but this GPU has 8\.6; build it here: wise-edge build"
    ):
        _open(bundle)
    session = _open(bundle, "auto")
    assert {choice.name for choice in session.choices.values()} == {"onnx"}
    assert "tensorrt did not start" in session.choices["mask"].reason


def test_an_engine_of_another_version_is_not_loaded(
    gpu: Counters, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt_rtx"], "__version__", "99.0")
    with pytest.raises(
        DeviceError, match=rf"was built by tensorrt_rtx {trt.__version__}, but 99\.0 is installed; build it"
    ):
        _open(bundle)


def test_an_engine_of_another_graph_is_not_loaded(gpu: Counters, bundle: Path, tmp_path: Path) -> None:
    folder = copytree(bundle, tmp_path / "bundle")
    file = folder / "sam.encoder.rtx.engine.json"
    sidecar = json.loads(file.read_text())
    file.write_text(json.dumps(sidecar | {"source_sha256": "0" * 64}, indent=2) + "\n")  # of the same size
    with pytest.raises(BundleError, match="does not belong to this bundle; build it again: wise-edge build"):
        EngineRuntime(load(folder)).open("sam.encoder")


def test_an_engine_that_does_not_load_says_what_to_do(gpu: Counters, bundle: Path, tmp_path: Path) -> None:
    folder = copytree(bundle, tmp_path / "bundle")
    file = folder / "sam.encoder.rtx.engine"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(
        DeviceError, match=r"does not load: Serialization assertion .*; build it again: wise-edge build"
    ):
        EngineRuntime(load(folder)).open("sam.encoder")


def test_without_a_gpu_there_is_nothing_to_run_engines_on(gpu: Counters, bundle: Path) -> None:
    gpu.set("devices", 0)
    with pytest.raises(DeviceError, match="TensorRT needs an NVIDIA GPU; none is found here"):
        _open(bundle)
    with pytest.raises(DeviceError, match=r"no NVIDIA GPU can be used \(no device\)"):
        cuda.open_cuda()


def test_dispatch_names_what_is_missing(bundle: Path) -> None:
    manifest = load(bundle).manifest

    def ask(gpu: tuple[int, int] | None, *packages: str, of: Any = manifest) -> tuple[Any, ...]:
        return list_candidates(of, DeviceCapabilities(packages, gpu=gpu), "policy", "tensorrt")

    assert ask((8, 9), "tensorrt_rtx")[0].name == "tensorrt"
    with pytest.raises(
        DeviceError, match=r"no policy\.vision\.engine\.orin for this GPU \(orin\); run: wise-edge build"
    ):
        ask((8, 7), "tensorrt")
    with pytest.raises(DeviceError, match=r"no engine is built for compute capability 6\.1"):
        ask((6, 1), "tensorrt")
    with pytest.raises(MissingExtraError, match=r"pip install 'wise-edge\[rtx\]'"):
        ask((8, 9))
    with pytest.raises(DeviceError, match=r"no engines\.plan for TensorRT; export it with --target tensorrt"):
        ask((8, 9), "tensorrt_rtx", of=load(resolve_bundle(EMBEDDED)).manifest)


def test_the_memory_of_the_gpu_is_known(gpu: Counters) -> None:
    assert cuda.open_cuda().memory() == (3, 4)
    assert cuda.find_capability() == (8, 9)


def test_addresses_that_are_nobodys_are_refused(gpu: Counters) -> None:
    runtime = cuda.open_cuda()
    with pytest.raises(WiseEdgeError, match="cudaFree failed: invalid argument, error 1"):
        runtime.free(SimpleNamespace(address=4096).address)
