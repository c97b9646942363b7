"""How large the arrays of a graph become over typical inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
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
    package = require("onnx", "export")
    onnxruntime = require("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Each array is measured as soon as it is there, and let go: otherwise all of them are held, 21 GB instead of 4 for
    # Segment Anything's vit_b at 1024 px. Weights of a file of their own are used where they lie.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".ranges.") as folder:
        file = Path(folder) / "measured.onnx"
        with _measuring(model, names):
            save_onnx(model, file)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        extremes = [output.name.rpartition(".")[0] for output in session.get_outputs()]
        rows = [session.run(None, batch) for batch in batches]
        del session
        package.external_data_helper.load_external_data_for_model(model, folder)  # which `save_onnx` took out of it
    largest = np.abs(np.array(rows, np.float64)).max(axis=0).reshape(-1, 2).max(axis=1)  # of both ends; NaN stays
    return dict(zip(extremes[::2], largest.tolist(), strict=True))


@contextmanager
def _measuring(model: onnx.ModelProto, names: Collection[str]) -> Iterator[None]:
    """Let a model give how far its arrays reach instead of what it gives; a copy would hold its weights twice."""
    graph = model.graph
    nodes, outputs = list(graph.node), list(graph.output)
    weights = {tensor.name for tensor in graph.initializer}
    del graph.node[:]
    del graph.output[:]
    try:
        given = [value.name for value in graph.input if value.name not in weights]
        for node in (None, *nodes):
            if node is not None:
                graph.node.append(node)
                given = list(node.output)
            for name in given:
                if name in names:
                    _measure(graph, name)
        yield
    finally:
        for container, values in ((graph.node, nodes), (graph.output, outputs)):
            del container[:]
            container.extend(values)


def _measure(graph: onnx.GraphProto, name: str) -> None:
    onnx = require("onnx", "export")
    for operator in ("ReduceMax", "ReduceMin"):
        extreme = f"{name}.{operator}"
        graph.node.append(onnx.helper.make_node(operator, [name], [extreme], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(extreme, onnx.TensorProto.FLOAT, []))
