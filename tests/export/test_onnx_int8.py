"""Static int8 quantizes what has weights, leaves the rest, stays near the float graph and repeats to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from wise_edge.export.to_onnx import edit as onnx_edit
from wise_edge.export.to_onnx.int8 import quantize_int8
from wise_edge.export.to_onnx.trace import export_onnx


class Attending(torch.nn.Module):
    """A convolution, a linear layer and a product of activations, as an image encoder has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = torch.nn.Conv2d(3, 32, 4, stride=4)
        self.query = torch.nn.Linear(32, 32)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.half().float())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        attention: torch.Tensor = torch.softmax(self.query(tokens) @ tokens.transpose(1, 2), dim=-1) @ tokens
        return attention


def batches(count: int = 8) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graph") / "float.onnx"
    export_onnx(Attending().eval(), (torch.zeros(1, 3, 16, 16),), ["image"], ["tokens"], file)
    stored = onnx.load(file).graph.initializer
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in stored}  # which must be seen as weights, too
    return file


def run(file: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def test_the_result_is_near_and_smaller_and_keeps_its_inputs(graph: Path, tmp_path: Path) -> None:
    quantize_int8(graph, tmp_path / "int8.onnx", batches())

    image = batches(9)[8]["image"]
    exact, got = run(graph, image), run(tmp_path / "int8.onnx", image)
    error = np.abs(got - exact).mean() / np.abs(exact).mean()
    assert 0 < error < 0.05  # ten times that where sums of products saturate
    described = onnx.load(tmp_path / "int8.onnx").graph
    assert [value.type.tensor_type.elem_type for value in (*described.input, *described.output)] == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_weights_are_bytes_and_products_of_activations_stay_float(graph: Path, tmp_path: Path) -> None:
    quantize_int8(graph, tmp_path / "int8.onnx", batches())

    model = onnx.load(tmp_path / "int8.onnx").graph
    bytes_stored = [tensor for tensor in model.initializer if tensor.data_type == onnx.TensorProto.INT8]
    made_by = {output: node.op_type for node in model.node for output in node.output}
    products = [node for node in model.node if node.op_type == "MatMul"]
    assert sum(np.prod(tensor.dims) for tensor in bytes_stored) >= 32 * 48 + 32 * 32
    assert [{made_by[name] for name in node.input} == {"DequantizeLinear"} for node in products] == [True, False, False]
    assert made_by[products[2].input[0]] == "Softmax"  # not rounded on its way


def test_the_same_input_gives_the_same_bytes(graph: Path, tmp_path: Path) -> None:
    for name in ("first.onnx", "second.onnx"):
        quantize_int8(graph, tmp_path / name, batches())

    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_weights_in_a_second_file_are_quantized_too(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_edit, "LARGEST_FILE", 1000)
    quantize_int8(graph, tmp_path / "int8.onnx", batches())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "int8.onnx.data"]
    monkeypatch.undo()
    image = batches(1)[0]["image"]
    (tmp_path / "again").mkdir()
    quantize_int8(graph, tmp_path / "again" / "int8.onnx", batches())
    np.testing.assert_array_equal(run(tmp_path / "int8.onnx", image), run(tmp_path / "again" / "int8.onnx", image))
