"""Weights of few bits: rounded to within half a step, smaller on disk, computed with in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tiny_graphs import export_rows
from wise_edge.export.to_onnx import edit as onnx_edit
from wise_edge.export.to_onnx.blocks import quantize_weights, round_blocks, round_channels
from wise_edge.export.to_onnx.trace import export_onnx

FLOATS = st.floats(-100, 100, width=32)


class Layers(torch.nn.Module):
    """A product with bias (Gemm), one without on three dimensions (MatMul), a head, and one with rows of no block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(64, 128)
        self.second = torch.nn.Linear(128, 72, bias=False)
        self.head = torch.nn.Linear(72, 96, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.second(torch.relu(self.first(x))[None]))
        return self.head(hidden), hidden


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_rows(Layers(), tmp_path_factory.mktemp("graph"), rows=3)


def run(file: Path) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize(("bits", "error", "share"), [(8, 0.02, 0.3), (4, 0.2, 0.22)])
def test_the_result_is_near_and_smaller(source: Path, tmp_path: Path, bits: int, error: float, share: float) -> None:
    quantize_weights(source, tmp_path / "few.onnx", bits)

    exact, got = run(source), run(tmp_path / "few.onnx")
    assert 0 < np.abs(got - exact).mean() / np.abs(exact).mean() < error
    assert (tmp_path / "few.onnx").stat().st_size < share * source.stat().st_size + 3000


def test_blocks_divide_rows(source: Path, tmp_path: Path) -> None:
    quantize_weights(source, tmp_path / "few.onnx", 4)

    model = onnx.load(tmp_path / "few.onnx")
    stored = {tuple(t.dims): onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    assert stored[(128, 64)] == stored[(128, 72)] == "INT4"
    assert stored[(72, 96)] == "INT8"  # 72 has no block
    blocks = {a.i for n in model.graph.node for a in n.attribute if a.name == "block_size"}
    assert blocks == {64, 128}
    assert model.opset_import[0].version == 21


def test_a_named_output_keeps_eight_bits(tmp_path: Path) -> None:
    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(64, 64, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(x)
            return y

    file = tmp_path / "head.onnx"
    export_onnx(Head().eval(), (torch.zeros(3, 64),), ["x"], ["logits"], file)
    found = []
    for kept in ((), ("logits",)):
        quantize_weights(file, tmp_path / "few.onnx", 4, kept)
        initializers = onnx.load(tmp_path / "few.onnx").graph.initializer
        found.append(onnx.TensorProto.INT4 in {tensor.data_type for tensor in initializers})

    assert found == [True, False]


@given(st_numpy.arrays(np.float32, (5, 64), elements=FLOATS), st.sampled_from([0, 1]))
def test_eight_bits_are_within_half_a_step(values: np.ndarray, axis: int) -> None:
    rounded, scales = round_channels(values, axis)

    assert np.abs(rounded.astype(int)).max() <= 127
    restored = rounded * np.expand_dims(scales, 1 - axis)
    assert (np.abs(restored - values) <= np.expand_dims(scales, 1 - axis) * 0.501 + 1e-6).all()


@given(st_numpy.arrays(np.float32, (64, 3), elements=FLOATS), st.sampled_from([16, 32, 64]))
def test_four_bits_are_no_worse_than_plain_rounding(values: np.ndarray, block: int) -> None:
    rounded, scales = round_blocks(values, 0, block)

    assert rounded.shape == values.shape
    assert scales.shape == (64 // block, 3)
    assert (scales > 0).all()
    assert -8 <= rounded.min() <= rounded.max() <= 7
    blocks = values.reshape(-1, block, 3).astype(np.float64)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 7
    plain = np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0).round() * step
    ours = rounded.reshape(blocks.shape) * scales[:, None].astype(np.float64)
    assert (np.square(ours - blocks).sum(axis=1) <= np.square(plain - blocks).sum(axis=1) * 1.001 + 1e-6).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_in_a_second_file_are_quantized_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    quantize_weights(source, tmp_path / "one.onnx", bits)
    monkeypatch.setattr(onnx_edit, "LARGEST_FILE", 1000)
    quantize_weights(source, tmp_path / "two.onnx", bits)

    assert (tmp_path / "two.onnx.data").exists()
    np.testing.assert_array_equal(run(tmp_path / "one.onnx"), run(tmp_path / "two.onnx"))
