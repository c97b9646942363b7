"""How large the arrays of a graph become over typical inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wise_edge.export.onnx_edit import Batch, save_onnx
from wise_edge.extras import require

if TYPE_CHECKING:
    import onnx


def measure_magnitudes(
    model: onnx.ModelProto, names: Collection[str], scratch: Path, batches: Iterable[Batch]
) -> dict[str, float]:
    """Return the largest magnitude of each named array that a node gives or that goes in, over all batches.

    Args:
        model: a graph that computes in float32.
        names: float arrays; those that are neither given by a node nor inputs are left out.
        scratch: folder for a copy of the graph.
        batches: inputs by name, at least one.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    onnx = require("onnx", "export")
    onnxruntime = require("onnxruntime", "export")
    measured = onnx.ModelProto()
    measured.CopyFrom(model)
    del measured.graph.output[:]
    del measured.graph.node[:]
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [value.name for value in model.graph.input if value.name not in weights]
    for node in (None, *model.graph.node):
        if node is not None:
            measured.graph.node.append(node)
            given = list(node.output)
        for name in given:
            if name in names:
                _measure(measured.graph, name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Each array is measured as soon as it is there, and let go: otherwise all of them are held, 21 GB instead of 4 for
    # Segment Anything's vit_b at 1024 px.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".ranges.") as folder:
        file = Path(folder) / "measured.onnx"
        save_onnx(measured, file)
        del measured
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        extremes = [output.name.rpartition(".")[0] for output in session.get_outputs()]
        rows = [session.run(None, batch) for batch in batches]
    largest = np.abs(np.array(rows, np.float64)).max(axis=0).reshape(-1, 2).max(axis=1)  # of both ends; NaN stays
    return dict(zip(extremes[::2], largest.tolist(), strict=True))


def _measure(graph: onnx.GraphProto, name: str) -> None:
    onnx = require("onnx", "export")
    for operator in ("ReduceMax", "ReduceMin"):
        extreme = f"{name}.{operator}"
        graph.node.append(onnx.helper.make_node(operator, [name], [extreme], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(extreme, onnx.TensorProto.FLOAT, []))
