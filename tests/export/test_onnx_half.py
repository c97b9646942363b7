"""Half precision stays near the float graph, keeps what would overflow, and puts a Cast only where types meet."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tiny_models import SAM, make_sam
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_onnx import edit as onnx_edit
from wise_edge.export.to_onnx import half as onnx_half
from wise_edge.export.to_onnx.bf16 import stand_in
from wise_edge.export.to_onnx.edit import replace_graph
from wise_edge.export.to_onnx.half import halve
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.sam.segment_anything import save_sam

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


class Overflowing(torch.nn.Module):
    """A middle layer whose values are beyond half precision, between two that are not."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = (torch.nn.Linear(32, 32) for _ in range(3))
        self.norm = torch.nn.LayerNorm(32)
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        hidden = torch.relu(self.middle(hidden) * self.gain)
        y: torch.Tensor = self.last(self.norm(hidden))
        return y


def batches(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((5, 32)).astype(np.float32)} for _ in range(count)]


@functools.cache
def traced(gain: float) -> bytes:
    """The graph of `Overflowing` as a file's content, traced once: it takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        export_onnx(Overflowing(gain).eval(), (torch.zeros(5, 32),), ["x"], ["y"], file)
        return file.read_bytes()


def export(folder: Path, gain: float) -> Path:
    (folder / "float.onnx").write_bytes(traced(gain))
    return folder / "float.onnx"


def run(file: Path, batch: dict[str, np.ndarray]) -> np.ndarray:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, batch)[0]


def types(file: Path) -> dict[str, int]:
    """The type of every array of a graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return typed | {tensor.name: tensor.data_type for tensor in graph.initializer}


def products(file: Path) -> list[int]:
    """The type of each product of matrices, in order."""
    typed = types(file)
    return [typed[n.output[0]] for n in onnx.load(file).graph.node if n.op_type in ("MatMul", "Gemm")]


@pytest.mark.parametrize("gain", [1.0, 1e6])
def test_the_result_is_near(tmp_path: Path, gain: float) -> None:
    source = export(tmp_path, gain)

    layers = halve(source, tmp_path / "half.onnx", batches())

    assert layers == (["middle"] if gain > 1 else [])
    batch = batches(9)[8]
    exact, got = run(source, batch), run(tmp_path / "half.onnx", batch)
    assert 0 < np.abs(got - exact).max() / np.abs(exact).max() < 5e-3
    assert got.dtype == np.float32
    assert products(tmp_path / "half.onnx") == [HALF, HALF, HALF]


def test_what_overflows_stays_float(tmp_path: Path) -> None:
    source = export(tmp_path, 1e6)

    halve(source, tmp_path / "half.onnx", batches())

    typed, graph = types(tmp_path / "half.onnx"), onnx.load(tmp_path / "half.onnx").graph
    relu = [typed[node.output[0]] for node in graph.node if node.op_type == "Relu"]
    assert relu == [HALF, FLOAT]
    assert [typed[node.output[0]] for node in graph.node if node.op_type == "LayerNormalization"] == [FLOAT]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_without_room_for_large_values_it_would_be_infinite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = onnx_half.HalfType("FLOAT16", np.inf, 0.0, 0.0)  # the check above checks something
    monkeypatch.setitem(onnx_half.HALF_TYPES, "fp16", unlimited)
    source = export(tmp_path, 1e6)

    halve(source, tmp_path / "half.onnx", batches())

    assert not np.isfinite(run(tmp_path / "half.onnx", batches(9)[8])).all()


def test_a_layer_of_a_segmenter_that_overflows_is_named(tmp_path: Path) -> None:
    sam = make_sam()
    mlp = sam.image_encoder.blocks[0].mlp
    with torch.no_grad():
        mlp.lin1.weight.mul_(2.0**13)
        mlp.lin2.weight.mul_(2.0**-13)
    save_sam(sam, SAM, tmp_path / "sam")

    encoder, decoder = SamSource(tmp_path / "sam").export(tmp_path, "fp16", True, read_calibration(None, 2), print)

    assert encoder.float32_layers == ("blocks.0.mlp.lin1",)
    assert decoder.float32_layers == ()


class LinearAttention(torch.nn.Module):
    """Attention of the kind that divides by a sum which may be tiny or zero, as EfficientViT's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys = torch.relu(x), torch.relu(x.transpose(-1, -2))
        ones = torch.nn.functional.pad(x.transpose(-1, -2), (0, 0, 0, 1), value=1.0)
        found = torch.matmul(torch.matmul(ones, keys.transpose(-1, -2)), queries.transpose(-1, -2))
        return found[:, :-1] / (found[:, -1:] + 1e-15)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("attention") / "float.onnx"
    export_onnx(LinearAttention(), (torch.zeros(1, 5, 32),), ["x"], ["y"], file)
    return file


@pytest.fixture
def tiny() -> dict[str, np.ndarray]:
    """Queries of ordinary size, of 1e-8, and none."""
    x = np.random.default_rng(1).standard_normal((1, 5, 32)).astype(np.float32)
    x[:, 3] *= 1e-8
    x[:, 4] = -1
    return {"x": x}


def test_a_divisor_stays_above_zero(attention: Path, tiny: dict[str, np.ndarray]) -> None:
    expected = LinearAttention()(torch.from_numpy(tiny["x"])).numpy()

    assert np.isfinite(expected).all()
    np.testing.assert_allclose(run(attention, tiny), expected, rtol=1e-5, atol=1e-6)


def test_a_tiny_divisor_stays_float(attention: Path, tiny: dict[str, np.ndarray], tmp_path: Path) -> None:
    layers = halve(attention, tmp_path / "half.onnx", batches=[{"x": tiny["x"][:, [0, 1, 2, 2, 2]]}])

    assert layers == []  # it has no weights
    assert products(tmp_path / "half.onnx") == [HALF, FLOAT]
    ordinary, zero = [0, 1, 2], [4]
    exact, got = run(attention, tiny), run(tmp_path / "half.onnx", tiny)
    np.testing.assert_allclose(got[..., ordinary], exact[..., ordinary], rtol=2e-2, atol=2e-2)
    np.testing.assert_array_equal(got[..., zero], 0)
    assert np.isfinite(got).all()


def test_types_are_consistent_and_casts_join_different_ones(tmp_path: Path) -> None:
    halve(export(tmp_path, 1e6), tmp_path / "half.onnx", batches())

    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    typed = types(tmp_path / "half.onnx")
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert casts
    assert all(typed[node.input[0]] != typed[node.output[0]] for node in casts)
    assert len({(node.input[0], typed[node.output[0]]) for node in casts}) == len(casts)
    assert [typed[value.name] for value in (*model.graph.input, *model.graph.output)] == [FLOAT, FLOAT]


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing(tmp_path: Path) -> None:
    source = export(tmp_path, 1e6)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(source.read_bytes())

    halve(source, tmp_path / "half.onnx", batches())
    replace_graph(copy, lambda old, new: halve(old, new, batches()))

    assert (tmp_path / "half.onnx").read_bytes() == copy.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.onnx", "float.onnx", "half.onnx"]


def test_weights_in_a_second_file_are_halved_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = export(tmp_path, 1.0)
    halve(source, tmp_path / "one.onnx", batches())
    monkeypatch.setattr(onnx_edit, "LARGEST_FILE", 1000)
    replace_graph(source, lambda old, new: halve(old, new, batches()))

    assert (tmp_path / "float.onnx.data").exists()
    batch = batches(1)[0]
    np.testing.assert_array_equal(run(tmp_path / "one.onnx", batch), run(source, batch))


_MEASURE = """
import sys
from pathlib import Path
import numpy as np, onnx
from wise_edge.export.to_onnx.ranges import measure_magnitudes as measure

def peak_mb():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

model = onnx.load(sys.argv[1])
names = {name for node in model.graph.node for name in node.output}
small = {"x": np.ones((1, 1), np.float32)}
measure(Path(sys.argv[1]), names, [small])
before = peak_mb()
measure(Path(sys.argv[1]), names, [{"x": np.ones((1, 2**21), np.float32)}])
print(peak_mb() - before)
"""


def test_arrays_are_measured_one_by_one(tmp_path: Path) -> None:
    """Those of a real segmenter do not fit into memory together."""
    count, array_mb = 64, 8
    nodes = [onnx.helper.make_node("Neg", [f"{'x' if i == 0 else i}"], [f"{i + 1}"]) for i in range(count)]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", "columns"])
        for name in ("x", str(count))
    ]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "chain.onnx")
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "chain.onnx")]
    grown_mb = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown_mb < 12 * array_mb  # of 64


def test_bfloat16_keeps_the_range_of_float32_and_rounds_in_its_stand_in(tmp_path: Path) -> None:
    source, narrow, checked = export(tmp_path, 1e6), tmp_path / "narrow.onnx", tmp_path / "checked.onnx"

    halve(source, narrow, batches(), "bf16")
    stand_in(narrow, checked)

    assert products(narrow) == [onnx.TensorProto.BFLOAT16] * 3
    assert [v.type.tensor_type.elem_type for v in onnx.load(narrow).graph.output] == [FLOAT]
    batch = batches(9)[8]
    exact, got = run(source, batch), run(checked, batch)
    assert 1e-3 < np.abs(got - exact).max() / np.abs(exact).max() < 4e-2
    torch.manual_seed(0)
    with torch.no_grad():  # the same module with its products in bfloat16
        module = Overflowing(1e6).eval()
        x, wide = torch.from_numpy(batch["x"]), torch.bfloat16
        for layer in (module.first, module.middle, module.last):
            layer.to(wide)
        hidden = torch.relu(module.middle(torch.relu(module.first(x.to(wide)))) * module.gain).float()
        reference = module.last(module.norm(hidden).to(wide)).float().numpy()
    assert np.abs(got - reference).max() / np.abs(exact).max() < 2e-2


def test_an_operator_that_is_not_defined_for_bfloat16_stays_float(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    export_onnx(module, (torch.zeros(1, 3, 8, 8),), ["x"], ["y"], tmp_path / "float.onnx")
    halve(tmp_path / "float.onnx", tmp_path / "narrow.onnx", [{"x": np.ones((1, 3, 8, 8), np.float32)}], "bf16")
    model = onnx.load(tmp_path / "narrow.onnx")
    onnx.checker.check_model(model, full_check=True)
    typed = types(tmp_path / "narrow.onnx")
    assert [typed[node.output[0]] for node in model.graph.node if node.op_type == "Conv"] == [FLOAT]
