"""Reading, changing and writing ONNX files in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from wise_edge.bundle.manifest import Artifact
from wise_edge.bundle.store import describe_file

LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold, since protobuf ends at 2 GiB; larger weights go to a second file."""
DATA_SUFFIX = ".data"
T = TypeVar("T")


def exceeds_one_file(model: onnx.ModelProto) -> bool:
    """Return whether a model's weights need a file of their own."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE


def save_onnx(model: onnx.ModelProto, path: Path, source: Path | None = None) -> None:
    """Write a model deterministically and check it; large weights go to a second file (`DATA_SUFFIX`).

    Args:
        model: what to write.
        path: the file.
        source: the file that it was read from with `load_float32`; some of its weights may still be there only.
    """
    if source is not None:
        for tensor in model.graph.initializer:
            if onnx.external_data_helper.uses_external_data(tensor):
                tensor.CopyFrom(onnx.numpy_helper.from_array(values_of(tensor, source), tensor.name))
    if exceeds_one_file(model):
        onnx.save_model(model, path, save_as_external_data=True, location=path.name + DATA_SUFFIX)
        path.with_name(path.name + DATA_SUFFIX).chmod(path.stat().st_mode)  # onnx makes it readable for its owner only
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def replace_graph(file: Path, convert: Callable[[Path, Path], T]) -> T:
    """Replace a graph and its weights' file by what `convert` writes, given the old path and the new one.

    Returns:
        What `convert` returns.
    """
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".float.") as scratch:
        for part in (file, file.with_name(file.name + DATA_SUFFIX)):
            if part.exists():
                part.rename(Path(scratch) / part.name)
        return convert(Path(scratch) / file.name, file)


def free_axis(file: Path, name: str, axis: str) -> None:
    """Let the first axis of an input of size 1 have another size, where the operators after it broadcast.

    torch.export knows no size that is 1 or that of another axis.

    Args:
        file: an ONNX file, changed in place.
        name: the input.
        axis: name of the axis.
    """
    model = onnx.load(file, load_external_data=False)
    found = next(each for each in model.graph.input if each.name == name)
    found.type.tensor_type.shape.dim[0].dim_param = axis
    file.write_bytes(model.SerializeToString(deterministic=True))


def load_light(path: Path) -> onnx.ModelProto:
    """Read a file without the weights stored in a second one."""
    model: onnx.ModelProto = onnx.load(path, load_external_data=False)
    return model


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace a model's nodes, and drop the weights that none of the new ones uses."""
    copies, graph = list(nodes), model.graph
    del graph.node[:]
    del graph.value_info[:]  # it may hold outdated types
    graph.node.extend(copies)
    used = {name for node in copies for name in node.input}
    for place in reversed(range(len(graph.initializer))):  # filtering and re-adding would hold the kept ones twice
        if graph.initializer[place].name not in used:
            del graph.initializer[place]


def load_float32(path: Path) -> onnx.ModelProto:
    """Read a file of `export_onnx` with its weights as float32, without the Casts from half precision.

    Weights in a second file stay there in their stored type: `values_of` reads one, and `save_onnx` all that remain.
    A large model is never completely in memory.
    """
    model = load_light(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Cast" or node.input[0] not in stored:
            nodes.append(node)
            continue
        tensor = stored[node.input[0]]
        if onnx.external_data_helper.uses_external_data(tensor):
            tensor.name = node.output[0]
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values_of(tensor, path), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def values_of(tensor: onnx.TensorProto, source: Path) -> npt.NDArray[Any]:
    """Return a weight of a model that `load_float32` read; half precision becomes float32.

    Args:
        tensor: the weight.
        source: the file that the model was read from.
    """
    values: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensor, str(source.parent))
    return values.astype(np.float32) if values.dtype == np.float16 else values


def describe_graph(out: Path, role: str, precision: str, float32_layers: Sequence[str] = ()) -> Iterator[Artifact]:
    """Yield the manifest entries of a graph named after its role and, if it has one, of its weights' file."""
    name = f"{role}.onnx"
    yield describe_file(out, name, role, "onnx", precision, float32_layers)
    if (out / (name + DATA_SUFFIX)).exists():
        yield describe_file(out, name + DATA_SUFFIX, f"{role}.data", "onnx-data", precision)
