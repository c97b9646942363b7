"""Half precision for ONNX graphs: float16 or bfloat16, and float32 where that would overflow or lose too much.

Overflow is predicted by measurement: the float graph runs over typical inputs with the largest magnitude of every array
as an additional output. Types are explicit in the result (Cast nodes), as TensorRT's strongly typed networks require;
inputs and outputs stay float32. NVIDIA's modelopt has a similar converter but pins older versions of onnx and
onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from wise_edge.export.to_onnx.edit import load_float32, load_light, replace_nodes, save_onnx, values_of
from wise_edge.export.to_onnx.ranges import measure_magnitudes, name_layers
from wise_edge.policy.graph_io import Batch


@dataclass(frozen=True)
class HalfType:
    """Numbers of 16 bits.

    Attributes:
        name: the type's name in ONNX.
        largest: magnitude above which an array stays float32; below the type's limit to leave room for unseen inputs.
        smallest: magnitude below which numbers lose bits.
        zero: magnitude below which numbers are 0.
    """

    name: str
    largest: float
    smallest: float
    zero: float


HALF_TYPES = {
    "fp16": HalfType("FLOAT16", 65504.0 / 8, 2.0**-14, 2.0**-25),
    "bf16": HalfType("BFLOAT16", 2.0**128 / 8, 2.0**-126, 2.0**-134),
}
"""By precision. bfloat16 has the range of float32, and 8 significant bits instead of float16's 11."""
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
"""Operators that lose too much in half precision (sums, quotients, angles), or do not accept it for every input."""
_MOVES = {"Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose outputs hold numbers of their first input."""
_GLUE = {"Add", "Div", "Mul", "Neg", "Sub"}
"""Operators that stay in float32 if all their neighbors do: casting there and back would gain nothing."""


def halve(source: Path, target: Path, batches: Iterable[Batch], precision: str = "fp16") -> list[str]:
    """Write a graph that computes in half precision wherever that is safe.

    Returns:
        The layers that stay float32 because numbers overflow or vanish there, by their names in torch; operators that
        always stay are not among them.

    Args:
        source: an ONNX file of `export_onnx`.
        target: the file to write; weights above 2 GB go to a second one.
        batches: typical inputs by name, at least one.
        precision: one of `HALF_TYPES`.
    """
    kind = HALF_TYPES[precision]
    floats = arrays_of_type(load_light(source), "FLOAT")
    magnitudes = measure_magnitudes(source, floats, batches)
    model = load_float32(source)
    for tensor in model.graph.initializer:
        if tensor.name in floats and np.prod(tensor.dims) > 0:
            magnitudes[tensor.name] = float(np.abs(values_of(tensor, source)).max())
    large = {name for name, magnitude in magnitudes.items() if not magnitude <= kind.largest}
    guarded = _guarded(model, magnitudes, kind.smallest)
    layers = name_layers(model.graph, large | _guarded(model, magnitudes, kind.zero))
    _Rewriter(model, source, floats, _exact_nodes(model, floats, large | guarded, kind), kind).rewrite()
    save_onnx(model, target, source)
    return layers


def arrays_of_type(model: onnx.ModelProto, name: str) -> set[str]:
    """Return the names of a graph's arrays of one type, weights included; `name` is ONNX's, for example "FLOAT"."""
    kind = onnx.TensorProto.DataType.Value(name)
    graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    names = {value.name for value in typed if value.type.tensor_type.elem_type == kind}
    return names | {tensor.name for tensor in model.graph.initializer if tensor.data_type == kind}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with its large weights as inputs: shape inference accepts only models below 2 GB."""
    light: onnx.ModelProto = onnx.ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = model.ir_version
    for field in ("node", "input", "output"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 2**10 and not onnx.external_data_helper.uses_external_data(tensor):
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light


def _exact_nodes(model: onnx.ModelProto, floats: set[str], unsafe: set[str], kind: HalfType) -> set[int]:
    """Return the indexes of the nodes that stay float32."""
    nodes = list(model.graph.node)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    exact = {
        place
        for place, node in enumerate(nodes)
        if node.op_type in _SENSITIVE
        or not unsafe.isdisjoint((*node.input, *node.output))
        or _makes_floats(node, floats)
        or not _takes(node, floats, opset, kind)
    }
    return _grow(nodes, exact, floats)


def _guarded(model: onnx.ModelProto, magnitudes: dict[str, float], smallest: float) -> set[str]:
    """Return the arrays that a number below `smallest` is added to, whose own can be tiny too then, and the sums.

    So linear attention keeps its divisor from zero (`x / (y + 1e-15)`): in half precision both would be 0.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    guarded: set[str] = set()
    for node in model.graph.node:
        tiny = [name for name in node.input if name in weights and 0 < magnitudes.get(name, 0) < smallest]
        if node.op_type != "Add" or not tiny:
            continue
        guarded.update((*node.input, *node.output))
        waiting = [name for name in node.input if name not in tiny]
        while waiting and (maker := made_by.get(waiting.pop())) is not None and maker.op_type in _MOVES:
            guarded.add(maker.input[0])
            waiting.append(maker.input[0])
    return guarded


def _takes(node: onnx.NodeProto, floats: set[str], opset: int, kind: HalfType) -> bool:
    """Return whether an operator is defined for a 16-bit type (before opset 22, convolutions lack bfloat16)."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    last = len(schema.inputs) - 1
    formal = [schema.inputs[min(place, last)].type_str for place, name in enumerate(node.input) if name in floats]
    return all(f"tensor({kind.name.lower()})" in allowed.get(name, [name]) for name in formal)


def _makes_floats(node: onnx.NodeProto, floats: set[str]) -> bool:
    """Return whether a node's output type is independent of its inputs (Cast, ConstantOfShape, Constant)."""
    return node.op_type in ("Cast", "Constant", "ConstantOfShape") and not floats.isdisjoint(node.output)


def _grow(nodes: list[onnx.NodeProto], exact: set[int], floats: set[str]) -> set[int]:
    """Add the nodes of `_GLUE` whose neighbors are all exact."""
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
    """Inserts Cast nodes where an array meets a node of the other type."""

    def __init__(self, model: onnx.ModelProto, source: Path, floats: set[str], exact: set[int], kind: HalfType) -> None:
        self._half = onnx.TensorProto.DataType.Value(kind.name)
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
            if name in self._outputs:  # outputs of the graph stay float32
                node.output[index] = f"{name}.half"
                self._made[name] = f"{name}.half"
                self._cast(f"{name}.half", name, onnx.TensorProto.FLOAT)
            else:
                self._halves.add(name)

    def _as(self, name: str, half: bool) -> str:
        """Return the name of an array in the requested type, which is created if it is missing."""
        if name not in self._floats or half == (name in self._halves):
            return name
        if name not in self._made:
            self._made[name] = f"{name}.{'half' if half else 'float'}"
            if name in self._weights:
                values = values_of(self._weights[name], self._source).astype(
                    onnx.helper.tensor_dtype_to_np_dtype(self._half)
                )
                self._graph.initializer.append(onnx.numpy_helper.from_array(values, self._made[name]))
            else:
                self._cast(name, self._made[name], self._half if half else onnx.TensorProto.FLOAT)
        return self._made[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind))
