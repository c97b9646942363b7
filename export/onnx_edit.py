"""Reading, changing and writing ONNX files in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.extras import require

if TYPE_CHECKING:
    import onnx

Batch = dict[str, npt.NDArray[Any]]
"""Inputs of a graph by name."""
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold: protobuf ends at 2 GiB. Above, they go to a file of their own."""
DATA_SUFFIX = ".data"


def exceeds_one_file(model: onnx.ModelProto) -> bool:
    """Return whether a model's weights need a file of their own."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, the same bytes every time, and check it; large weights go to a second file (`DATA_SUFFIX`)."""
    onnx = require("onnx", "export")
    if exceeds_one_file(model):
        onnx.save_model(model, path, save_as_external_data=True, location=path.name + DATA_SUFFIX)
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def replace_graph(file: Path, convert: Callable[[Path, Path], None]) -> None:
    """Put what `convert` makes of a graph (first path) into its place (second path), its file of weights included."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".float.") as scratch:
        for part in (file, file.with_name(file.name + DATA_SUFFIX)):
            if part.exists():
                part.rename(Path(scratch) / part.name)
        convert(Path(scratch) / file.name, file)


def load_light(path: Path) -> onnx.ModelProto:
    """Read a file without the weights that lie in a file of their own."""
    model: onnx.ModelProto = require("onnx", "export").load(path, load_external_data=False)
    return model


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put other nodes into a model, and drop the weights that none of them uses."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    for container, values in ((model.graph.node, nodes), (model.graph.initializer, kept)):
        copies = list(values)
        del container[:]
        container.extend(copies)
    del model.graph.value_info[:]  # it may name the types of before


def load_float32(path: Path) -> onnx.ModelProto:
    """Read a file of `export_onnx`, weights that it stores in half precision back in float32 and without their Cast."""
    package = require("onnx", "export")
    model: onnx.ModelProto = package.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Cast" or node.input[0] not in stored:
            nodes.append(node)
            continue
        tensor = stored[node.input[0]]
        values = package.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(package.numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
