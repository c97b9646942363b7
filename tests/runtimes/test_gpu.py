"""What only an NVIDIA GPU can show: `make test-gpu`. Nobody has run it yet; docs/gpu.md says what else to look at."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from wise_edge.bundle.devices import find_gpu_kind
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.errors import DeviceError
from wise_edge.metrics import mask_iou
from wise_edge.native.cuda import open_cuda
from wise_edge.runtimes.session import Session
from wise_edge.scenes import sample

pytestmark = pytest.mark.gpu
SCENES = 20


def _agree(session: Session, reference: Session) -> None:
    """Answers and masks are those of the CPU in float32, but for what half precision and TF32 change."""
    ious, same = [], 0
    for index in range(SCENES):
        item = sample("test", index)
        got, expected = (s.segment(item.scene.image, item.query.text) for s in (session, reference))
        same += got.text == expected.text
        if got.mask is None or expected.mask is None:
            ious.append(float(got.mask is expected.mask))
        else:
            ious.append(mask_iou(got.mask, expected.mask))
    assert np.mean(ious) >= 0.97
    assert same >= 0.9 * SCENES


@pytest.fixture(scope="module")
def reference() -> Session:
    return Session.from_bundle(policy_backend="onnx", mask_backend="onnx")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle with engines for this GPU."""
    from wise_edge.export.to_tensorrt.target import add_engines

    folder = copytree(resolve_bundle(EMBEDDED), tmp_path_factory.mktemp("engines") / "bundle")
    add_engines(folder, (find_gpu_kind(open_cuda().capability),), lambda step, share=None: None)
    return folder


def test_engines_answer_as_the_cpu_does(engines: Path, reference: Session) -> None:
    session = Session.from_bundle(engines)
    assert {choice.name for choice in session.choices.values()} == {"tensorrt"}
    _agree(session, reference)


def test_memory_of_the_gpu_stays_where_it_is(engines: Path) -> None:
    session = Session.from_bundle(engines)
    scenes = [sample("test", index) for index in range(SCENES)]
    for item in scenes[:3]:
        session.segment(item.scene.image, item.query.text, "verbose")
    before = open_cuda().memory()[0]
    for item in scenes:
        session.segment(item.scene.image, item.query.text)
    assert before - open_cuda().memory()[0] <= 32 * 2**20


def test_an_engine_of_another_gpu_is_refused(engines: Path) -> None:
    from dataclasses import replace

    from wise_edge.bundle.engines import Sidecar
    from wise_edge.bundle.roles import engine_role

    capability = open_cuda().capability
    target = find_gpu_kind(capability)
    bundle = load(engines)
    role = engine_role("sam.decoder", target.engine_set)
    sidecar = replace(Sidecar.read(bundle.file(f"{role}.json")), capabilities=("1.0",))
    with pytest.raises(DeviceError, match="was built for compute capability"):
        sidecar.check(bundle.file(role), sidecar.builder, sidecar.builder_version, capability)


def test_onnx_runtime_on_cuda_answers_as_the_cpu_does(reference: Session) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA; pip install 'wise-edge[gpu]'")
    _agree(Session.from_bundle(policy_backend="onnx-cuda", mask_backend="onnx-cuda"), reference)


def test_llama_on_the_gpu_answers_as_the_cpu_does(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.pipeline import export_bundle
    from wise_edge.native.llama_library import offloads_to_gpu

    if not offloads_to_gpu():
        pytest.skip("llama-cpp-python was built for the CPU")
    options = ExportOptions(targets=("gguf",))
    export_bundle("embedded", "embedded", tmp_path / "b", options, verify=None, progress=lambda step, share=None: None)
    sessions = [Session.from_bundle(tmp_path / "b", policy_backend=name) for name in ("llama-gpu", "llama")]
    _agree(*sessions)
