"""Half precision for ONNX graphs: weights and products in float16, what would overflow or lose too much in float32.

Which values would overflow is measured: the float graph is run over typical inputs with the largest magnitude of every
array as a further output. Types are explicit in the result (Cast nodes), as TensorRT's strongly typed networks want it;
inputs and outputs stay float32. NVIDIA's modelopt has such a converter too, but pins older versions of onnx and
onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wise_edge.export.onnx_edit import Batch, load_float32, load_light, replace_nodes, save_onnx, values_of
from wise_edge.export.onnx_ranges import measure_magnitudes
from wise_edge.extras import require

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0 / 8
"""Magnitude above which an array stays float32: what half precision holds, with room for inputs that were not seen."""
_SENSITIVE = {
    "CumSum",
    "Cos",
    "Exp",
    "LayerNormalization",
    "Pow",
    "Range",
    "ReduceMean",
    "ReduceSum",
    "Reciprocal",
    "Resize",
    "Sin",
    "Softmax",
    "Sqrt",
}
"""Operators that lose too much in half precision (sums, quotients, angles), or do not take it for every input."""
_GLUE = {"Add", "Div", "Mul", "Neg", "Sub"}
"""Operators that stay in float32 where all around them do: rounding on the way there and back would gain nothing."""


def halve(source: Path, target: Path, batches: Iterable[Batch]) -> None:
    """Write a graph that computes in half precision where that is safe.

    Args:
        source: an ONNX file of `export_onnx`.
        target: the file to write, and a second one where weights are above 2 GB.
        batches: inputs by name, typical ones, at least one.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    floats = _float_arrays(load_light(source))
    magnitudes = measure_magnitudes(source, floats, batches)
    model = load_float32(source)
    for tensor in model.graph.initializer:
        if tensor.name in floats and np.prod(tensor.dims) > 0:
            magnitudes[tensor.name] = float(np.abs(values_of(tensor, source)).max())
    _Rewriter(model, source, floats, _exact_nodes(model, floats, magnitudes)).rewrite()
    save_onnx(model, target, source)


def _float_arrays(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 arrays of a graph."""
    onnx = require("onnx", "export")
    graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    names = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return names | {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large weights are inputs instead: inference takes a whole model, below 2 GB."""
    package = require("onnx", "export")
    light: onnx.ModelProto = package.ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = model.ir_version
    for field in ("node", "input", "output"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 2**10 and not package.external_data_helper.uses_external_data(tensor):
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                package.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light


def _exact_nodes(model: onnx.ModelProto, floats: set[str], magnitudes: dict[str, float]) -> set[int]:
    """Return the places of the nodes that stay float32."""
    nodes = list(model.graph.node)
    large = {name for name, magnitude in magnitudes.items() if not magnitude <= LARGEST}
    exact = {
        place
        for place, node in enumerate(nodes)
        if node.op_type in _SENSITIVE
        or not large.isdisjoint((*node.input, *node.output))
        or _makes_floats(node, floats)
    }
    return _grow(nodes, exact, floats)


def _makes_floats(node: onnx.NodeProto, floats: set[str]) -> bool:
    """Return whether a node gives floats of its own type, whatever it takes (Cast, ConstantOfShape, Constant)."""
    return node.op_type in ("Cast", "Constant", "ConstantOfShape") and not floats.isdisjoint(node.output)


def _grow(nodes: list[onnx.NodeProto], exact: set[int], floats: set[str]) -> set[int]:
    """Add the nodes of `_GLUE` that stand between exact ones only."""
    made_by = {name: place for place, node in enumerate(nodes) for name in node.output}
    used_by: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        for name in node.input:
            used_by.setdefault(name, []).append(place)
    while True:
        more = {
            place
            for place, node in enumerate(nodes)
            if place not in exact
            and node.op_type in _GLUE
            and all(made_by[name] in exact for name in node.input if name in floats and name in made_by)
            and all(user in exact for name in node.output for user in used_by.get(name, [-1]))
        }
        if not more:
            return exact
        exact = exact | more


class _Rewriter:
    """Puts Cast nodes where an array meets a node of the other type."""

    def __init__(self, model: onnx.ModelProto, source: Path, floats: set[str], exact: set[int]) -> None:
        self._onnx = require("onnx", "export")
        self._model = model
        self._source = source
        self._graph = model.graph
        self._floats = floats
        self._exact = exact
        self._halves: set[str] = set()
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in floats}
        self._outputs = {value.name for value in model.graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, str] = {}

    def rewrite(self) -> None:
        """Change the graph in place."""
        for place, node in enumerate(list(self._graph.node)):
            half = place not in self._exact and self._touches_floats(node)
            node.input[:] = [self._as(name, half) for name in node.input]
            self._nodes.append(node)
            if half:
                self._give_halves(node)
        replace_nodes(self._model, self._nodes)

    def _touches_floats(self, node: onnx.NodeProto) -> bool:
        return not self._floats.isdisjoint((*node.input, *node.output))

    def _give_halves(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.output):
            if name not in self._floats:
                continue
            if name in self._outputs:  # what the graph gives stays float32
                node.output[index] = f"{name}.half"
                self._made[name] = f"{name}.half"
                self._cast(f"{name}.half", name, self._onnx.TensorProto.FLOAT)
            else:
                self._halves.add(name)

    def _as(self, name: str, half: bool) -> str:
        """Return the name of an array in the type that is wanted, made here if it is not there yet."""
        if name not in self._floats or half == (name in self._halves):
            return name
        if name not in self._made:
            self._made[name] = f"{name}.{'half' if half else 'float'}"
            if name in self._weights:
                values = values_of(self._weights[name], self._source).astype(np.float16)
                self._graph.initializer.append(self._onnx.numpy_helper.from_array(values, self._made[name]))
            else:
                kind = self._onnx.TensorProto.FLOAT16 if half else self._onnx.TensorProto.FLOAT
                self._cast(name, self._made[name], kind)
        return self._made[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind))
