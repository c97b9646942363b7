"""Running out of memory while a bundle is opened is distinguished from a damaged file, and has a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.errors import BundleError, DeviceError
from wise_edge.native import llama_library
from wise_edge.native.llama import LlamaModel
from wise_edge.native.memory import find_shortage
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph

ORT = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"
GGML = "ggml_aligned_malloc: insufficient memory (attempted to allocate   6.88 MB)"
CUDA = "CUDA failure 2: out of memory ; GPU=0"


@pytest.mark.parametrize("reason", [ORT, GGML, CUDA, "clip_init: failed to load model 'x': std::bad_alloc"])
def test_the_words_of_every_runtime_are_known(reason: str) -> None:
    error = find_shortage(Path("policy.gguf"), reason)

    assert error is not None
    assert error.exit_code == 4
    assert "policy.gguf does not fit into free memory" in str(error)
    assert "--quant Q4_K_M" in str(error)


@pytest.mark.parametrize("reason", ["invalid magic characters", "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF", ""])
def test_other_reasons_are_left_alone(reason: str) -> None:
    assert find_shortage(Path("policy.gguf"), reason) is None


def test_a_graph_that_does_not_fit_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(ORT)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match="does not fit into free memory"):
        OnnxGraph(tmp_path / "graph.onnx")
    monkeypatch.undo()
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="export the bundle again"):
        OnnxGraph(tmp_path / "graph.onnx")


def test_a_context_that_does_not_fit_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llama_library, "explain_failure", lambda what: f"{what}: {GGML}")
    low_level = llama_library.require_llama()
    monkeypatch.setattr(low_level, "llama_model_load_from_file", lambda *_: None)
    monkeypatch.setattr("wise_edge.native.llama.check_gguf", lambda file: None)  # there is no file
    with pytest.raises(DeviceError, match=r"text\.gguf does not fit into free memory"):
        LlamaModel(tmp_path / "text.gguf", tmp_path / "vision.gguf", 64)
