"""Engines of TensorRT for RTX, really built here, and what is refused before a build. None of them is run: no GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

from wise_edge.bundle.devices import GpuKind, find_gpu_kind, parse_gpu_kinds
from wise_edge.bundle.engines import ShapeRange, Sidecar
from wise_edge.errors import BundleError, DeviceError, UsageError, WiseEdgeError
from wise_edge.export.to_tensorrt import build as engine
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.export.to_tensorrt.progress import Phases
from wise_edge.files.hashing import hash_file

RANGE = ShapeRange((1, 8), (2, 8), (16, 8))
PORTABLE = parse_gpu_kinds("sm86,sm89,sm120")


def _save(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], *inputs: str) -> Path:
    """Write a graph from inputs [rows, 8] to y [rows, 8]."""
    arrays = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 8]) for name in (*inputs, "y")]
    graph = helper.make_graph(nodes, "graph", arrays[:-1], arrays[-1:], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("some.plugins", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def _linear(path: Path, number: int) -> Path:
    """Write a product with weights of a type of number."""
    values = np.random.default_rng(0).standard_normal((8, 8)).ravel().tolist()
    weights = [helper.make_tensor("w", number, [8, 8], values)]
    if number in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        nodes = [
            helper.make_node("Cast", ["x"], ["low"], to=number),
            helper.make_node("MatMul", ["low", "w"], ["product"]),
            helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
        ]
    elif number == TensorProto.FLOAT:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    else:
        zeros = helper.make_tensor("zero", number, [8], [0] * 8)
        weights += [zeros, helper.make_tensor("scale", TensorProto.FLOAT, [8], [0.1] * 8)]
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float"], axis=1),
            helper.make_node("MatMul", ["x", "float"], ["y"]),
        ]
    return _save(path, nodes, weights, "x")


def _request(file: Path, targets: tuple[GpuKind, ...] = PORTABLE, **ranges: ShapeRange) -> EngineRequest:
    return EngineRequest("policy.vision", file, "source", ranges or {"x": RANGE}, targets)


def _build(file: Path, targets: tuple[GpuKind, ...] = PORTABLE, **ranges: ShapeRange) -> Sidecar:
    return build_engine(_request(file, targets, **ranges), file.with_suffix(".engine"), lambda share: None)


@pytest.mark.parametrize(
    ("number", "names", "kind"),
    [
        (TensorProto.FLOAT, "sm86,sm89,sm120", "float32"),
        (TensorProto.FLOAT16, "sm89,sm120,sm121", "float16"),
        (TensorProto.FLOAT16, "sm75,sm86,sm89,sm120", "float16"),
        (TensorProto.BFLOAT16, "sm86,sm89,sm120", "bf16"),
        (TensorProto.INT8, "sm86,sm89,sm120", "int8"),
        (TensorProto.FLOAT8E4M3FN, "sm89,sm120", "fp8"),
    ],
)
def test_one_engine_serves_several_gpus_and_its_sidecar_says_what_it_is(
    number: int, names: str, kind: str, tmp_path: Path
) -> None:
    targets = parse_gpu_kinds(names)
    sidecar = _build(_linear(tmp_path / "graph.onnx", number), targets)
    built = tmp_path / "graph.engine"
    assert sidecar.capabilities == tuple("{}.{}".format(*target.capability) for target in targets)
    assert kind in sidecar.types
    assert (sidecar.bytes, sidecar.sha256) == (built.stat().st_size, hash_file(built))
    assert (sidecar.builder, sidecar.builder_version) == ("tensorrt_rtx", trt.__version__)
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*sidecar.inputs, *sidecar.outputs)] == [
        ("x", "float32", (-1, 8)),
        ("y", "float32", (-1, 8)),
    ]
    assert Sidecar.read(tmp_path / "graph.engine.json") == sidecar


@pytest.mark.parametrize(
    ("number", "names", "message"),
    [
        (TensorProto.FLOAT8E4M3FN, "sm86,sm89", r"computes with fp8, which sm86 \(compute capability 8\.6\) lacks"),
        (TensorProto.BFLOAT16, "sm75", "computes with bf16, which sm75"),
        (TensorProto.INT8, "sm75", "computes with int8, which sm75"),
    ],
)
def test_a_type_that_a_gpu_lacks_is_refused_before_the_build(
    number: int, names: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_serialize", lambda *_: pytest.fail("it was built"))
    with pytest.raises(DeviceError, match=message):
        _build(_linear(tmp_path / "graph.onnx", number), parse_gpu_kinds(names))
    assert [file.name for file in tmp_path.iterdir()] == ["graph.onnx"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the input x has a dynamic shape, but no range"),
        ({"x": RANGE, "z": RANGE}, "has no input z of dynamic shape"),
        ({"x": ShapeRange((1,), (2,), (16,))}, "of x must have 2 axes"),
        ({"x": ShapeRange((1, 8), (2, 8), (16, 9))}, "of x must be 8 along axis 1, it is 8 to 9"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given: dict[str, ShapeRange], message: str, tmp_path: Path) -> None:
    file = _linear(tmp_path / "graph.onnx", TensorProto.FLOAT)
    with pytest.raises(UsageError, match=message):
        build_engine(EngineRequest("g", file, "", given, PORTABLE), tmp_path / "e", lambda share: None)


def test_axes_of_one_name_must_have_one_range(tmp_path: Path) -> None:
    file = _save(tmp_path / "sum.onnx", [helper.make_node("Add", ["a", "b"], ["y"])], [], "a", "b")
    with pytest.raises(UsageError, match=r"of b differs along axis 0 \(rows\) from that of another input"):
        _build(file, PORTABLE, a=RANGE, b=replace(RANGE, largest=(17, 8)))
    assert _build(file, PORTABLE, a=RANGE, b=RANGE).ranges == {"a": RANGE, "b": RANGE}


def test_operators_of_plugins_are_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("RotaryThing", ["x"], ["y"], domain="some.plugins")]
    with pytest.raises(BundleError, match="uses the operator RotaryThing, which tensorrt_rtx lacks"):
        _build(_save(tmp_path / "graph.onnx", nodes, [], "x"))


def test_a_graph_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.onnx is missing; export the bundle again"):
        _build(tmp_path / "gone.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"noise\.onnx cannot be read by tensorrt_rtx: "):
        _build(tmp_path / "noise.onnx")


def test_gpus_of_several_builders_or_jetsons_share_no_engine(tmp_path: Path) -> None:
    file = _linear(tmp_path / "graph.onnx", TensorProto.FLOAT)
    for names in ("sm86,orin", "orin,thor"):
        with pytest.raises(UsageError, match=f"no engine serves {names.replace(',', ' and ')} at once"):
            _build(file, parse_gpu_kinds(names))


def test_a_capability_that_the_rtx_builder_does_not_know(tmp_path: Path) -> None:
    orin_by_rtx = replace(find_gpu_kind((8, 7)), builder="tensorrt_rtx")
    with pytest.raises(DeviceError, match=r"TensorRT for RTX .* does not know orin \(compute capability 8\.7\)"):
        _build(_linear(tmp_path / "graph.onnx", TensorProto.FLOAT), (orin_by_rtx,))


def test_a_build_that_fails_says_why_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _linear(tmp_path / "graph.onnx", TensorProto.FLOAT8E4M3FN)
    file.with_suffix(".engine").write_bytes(b"the last one")
    monkeypatch.setattr(engine, "check_types", lambda *_: None)  # the builder itself has to refuse
    with pytest.raises(WiseEdgeError, match=r"built no engine: .*sm86.*fp8"):
        _build(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.engine", "graph.onnx"]
    assert file.with_suffix(".engine").read_bytes() == b"the last one"


def test_an_interrupted_build_stops_and_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    file = _linear(tmp_path / "graph.onnx", TensorProto.FLOAT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(_request(file), tmp_path / "e", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_progress_rises_from_0_to_1(tmp_path: Path) -> None:
    shares: list[float] = []
    file = _linear(tmp_path / "graph.onnx", TensorProto.FLOAT)
    build_engine(_request(file), tmp_path / "e", shares.append)
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert 0.5 < shares[-1] <= 1


def test_a_phase_counts_what_is_done_within_its_step() -> None:
    phases = Phases()
    phases.start("whole", None, 4)
    phases.step("whole", 0)
    assert phases.share() == pytest.approx(1 / 4)
    phases.start("part", "whole", 2)
    phases.step("part", 0)
    assert phases.share() == pytest.approx(1 / 4 + 1 / 8)
    phases.finish("part")
    phases.step("whole", 1)
    assert phases.share() == pytest.approx(2 / 4)


def test_a_sidecar_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "graph.engine.json"
    for text, line in (
        ("", "is not JSON"),
        ("{}", "is not a valid sidecar"),
        ('{"graph": 1}', "is not a valid sidecar"),
    ):
        file.write_text(text)
        with pytest.raises(BundleError, match=line):
            Sidecar.read(file)
