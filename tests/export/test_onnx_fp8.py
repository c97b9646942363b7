"""Linear layers of eight-bit floats: near the float graph, each array rounded once, everything else as it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tiny_graphs import export_rows
from wise_edge.export.to_onnx.fp8 import quantize_fp8
from wise_edge.export.to_onnx.half import halve


class Layers(torch.nn.Module):
    """Two products of one array, a third of what they give, a convolution, and one of activations alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64, bias=False)
        self.head = torch.nn.Linear(64, 32)
        self.blur = torch.nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.softmax(self.left(x) @ self.right(x).T, dim=-1)
        hidden = weights @ self.blur(x[:, None])[:, 0]
        return self.head(hidden), hidden


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_rows(Layers(), tmp_path_factory.mktemp("graph"), rows=5)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)


def _run(file: Path, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})


def _operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


def test_what_it_gives_stays_near(graph: Path, x: np.ndarray, tmp_path: Path) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": x}])
    for got, expected in zip(_run(tmp_path / "fp8.onnx", x), _run(graph, x), strict=True):
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert 1e-4 < error < 0.08  # three bits of mantissa: a sixteenth at most for each factor


def test_each_array_is_rounded_once_and_only_products_with_weights(graph: Path, x: np.ndarray, tmp_path: Path) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": x}])
    found = _operators(tmp_path / "fp8.onnx")
    assert found["QuantizeLinear"] == 2  # what goes in, which two products share, and what the head takes
    assert found["DequantizeLinear"] == 2 + 3
    assert {name: found[name] for name in ("MatMul", "Gemm", "Conv")} == {
        name: _operators(graph)[name] for name in ("MatMul", "Gemm", "Conv")
    }
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "fp8.onnx").graph.initializer}
    assert sum(kind == onnx.TensorProto.FLOAT8E4M3FN for name, kind in stored.items() if name.endswith(".fp8")) == 3


def test_a_product_may_be_kept(graph: Path, x: np.ndarray, tmp_path: Path) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": x}], keep=("logits",))
    assert _operators(tmp_path / "fp8.onnx")["QuantizeLinear"] == 1


def test_weights_are_rounded_to_within_a_sixteenth_of_each_channels_range(
    graph: Path, x: np.ndarray, tmp_path: Path
) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": x}])
    before = {t.name: onnx.numpy_helper.to_array(t).astype(np.float32) for t in onnx.load(graph).graph.initializer}
    after = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "fp8.onnx").graph.initializer}
    rounded = [name.removesuffix(".fp8") for name in after if name.endswith(".fp8")]
    assert len(rounded) == 3
    for name in rounded:
        values = before[name]
        inputs = 1 - _channels(tmp_path / "fp8.onnx", name)
        scales = np.expand_dims(after[f"{name}.fp8.scale"], inputs)
        back = after[f"{name}.fp8"].astype(np.float32) * scales
        assert (np.abs(back - values) <= np.abs(values) / 16 + scales * 2**-9).all()
        np.testing.assert_allclose(np.abs(back).max(axis=inputs), np.abs(values).max(axis=inputs), rtol=1e-5)


def _channels(file: Path, name: str) -> int:
    node = next(node for node in onnx.load(file).graph.node if node.output[0] == f"{name}.fp8.float")
    return int(node.attribute[0].i)


def test_an_array_that_is_always_zero_is_no_trouble(graph: Path, x: np.ndarray, tmp_path: Path) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": np.zeros_like(x)}])
    assert all(np.isfinite(array).all() for array in _run(tmp_path / "fp8.onnx", x))


def test_what_is_left_may_be_halved(graph: Path, x: np.ndarray, tmp_path: Path) -> None:
    quantize_fp8(graph, tmp_path / "fp8.onnx", [{"x": x}])
    halve(tmp_path / "fp8.onnx", tmp_path / "halved.onnx", [{"x": x}])
    for got, expected in zip(_run(tmp_path / "halved.onnx", x), _run(tmp_path / "fp8.onnx", x), strict=True):
        np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "halved.onnx").graph.initializer}
    assert {onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT16} <= kinds
