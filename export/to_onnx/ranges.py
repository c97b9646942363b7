"""How large the arrays of a graph become over typical inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from wise_edge.export.to_onnx.edit import load_light
from wise_edge.native.onnxruntime_session import OnnxSession, quiet_options
from wise_edge.policy.graph_io import Batch


def measure_magnitudes(source: Path, names: Collection[str], batches: Iterable[Batch]) -> dict[str, float]:
    """Return the largest magnitude of each named input or intermediate array over all batches.

    Args:
        source: an ONNX file that computes in float32; a file of weights next to it is used in place.
        names: float arrays; weights among them are skipped.
        batches: inputs by name, at least one.
    """
    model = load_light(source)
    _measure_arrays(model.graph, names)
    file = source.with_name(f"{source.name}.measured")  # in the folder of the weights that it names
    try:
        file.write_bytes(model.SerializeToString(deterministic=True))
        del model
        session = OnnxSession(file, options=_frugal_options)
        extremes = [name.rpartition(".")[0] for name in session.outputs]
        rows = [list(session.run(batch).values()) for batch in batches]
    finally:
        file.unlink(missing_ok=True)
    largest = np.abs(np.array(rows, np.float64)).max(axis=0).reshape(-1, 2).max(axis=1)  # of both ends; NaN stays
    return dict(zip(extremes[::2], largest.tolist(), strict=True))


def name_layers(graph: onnx.GraphProto, arrays: Collection[str]) -> list[str]:
    """Return the layers that compute arrays, by their names in torch, in the graph's order.

    An array without weights of its own, for example a residual sum, is named after the last layer before it.

    Args:
        graph: of `export_onnx`, which keeps the names of most weights; of a linear layer without a bias it does not.
        arrays: names of arrays, weights among them.
    """
    weights = {tensor.name: tensor.name.rpartition(".")[0] for tensor in graph.initializer if "." in tensor.name}
    biases = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "Add" and node.input[1] in weights}
    layers: dict[str, str] = {}
    found: dict[str, None] = {}
    for node in graph.node:
        own = [weights[name] for name in (*node.input, *map(biases.get, node.output)) if name in weights]
        earlier = [layers[name] for name in reversed(node.input) if name in layers]
        if not own and not earlier:
            continue
        layer = (own + earlier)[0]
        layers |= dict.fromkeys(node.output, layer)
        if any(name in arrays for name in (*node.output, *(each for each in node.input if each in weights))):
            found[layer] = None
    return list(found)


def _frugal_options(onnxruntime: ModuleType) -> Any:
    options = quiet_options(onnxruntime)
    # Each array is measured and freed as soon as it is computed: otherwise all of them are held, 21 GB instead of 4
    # for Segment Anything's vit_b at 1024 px. Nothing is folded or packed either: both copy weights.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _measure_arrays(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Replace a graph's outputs by the extremes of its arrays, each measured right after it is computed."""
    nodes = list(graph.node)
    stored = {tensor.name for tensor in graph.initializer}
    del graph.node[:]
    del graph.output[:]
    given = [value.name for value in graph.input if value.name not in stored]
    for node in (None, *nodes):
        if node is not None:
            graph.node.append(node)
            is_weight = node.op_type == "Cast" and node.input[0] in stored
            given = [] if is_weight else list(node.output)
        for name in given:
            if name in names:
                _measure(graph, name)


def _measure(graph: onnx.GraphProto, name: str) -> None:
    for operator in ("ReduceMax", "ReduceMin"):
        extreme = f"{name}.{operator}"
        graph.node.append(onnx.helper.make_node(operator, [name], [extreme], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(extreme, onnx.TensorProto.FLOAT, []))
