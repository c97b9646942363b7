"""From a torch module to an ONNX file that is small, quiet to make and the same every time."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wise_edge.extras import require

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET = 20
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold: protobuf ends at 2 GiB. Above, they go to a file of their own."""
DATA_SUFFIX = ".data"
_SMALLEST_HALVED = 256  # elements; below that a Cast node costs more than it saves


def export_onnx(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    path: Path,
    dynamic: tuple[Any, ...] | None = None,
) -> str:
    """Export a module to a file, and to a second one named by `DATA_SUFFIX` if its weights exceed `LARGEST_FILE`.

    Args:
        module: in evaluation mode.
        example: its arguments.
        inputs: names of the arrays in `example`, nested ones in order.
        outputs: names of what it returns.
        path: the file to write.
        dynamic: for each argument the dimensions that vary, as `torch.export` takes them.

    Returns:
        Precision of the stored weights: "fp16" where half precision holds every large weight exactly (the graph
        then casts them to float32 and computes in it), else "fp32".
    """
    torch = require("torch", "export")
    onnx = require("onnx", "export")
    require("onnxscript", "export")
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    model = program.model_proto
    _strip(model)
    precision = _store_half(model)
    _write(model, path)
    onnx.checker.check_model(str(path))
    return precision


def _write(model: onnx.ModelProto, path: Path) -> None:
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE:
        location = path.name + DATA_SUFFIX
        require("onnx", "export").save_model(model, path, save_as_external_data=True, location=location)
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter prints progress, warns about its own internals and logs every decomposition it skips.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        sink = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _strip(model: onnx.ModelProto) -> None:
    """Drop what no runtime reads: stack traces (with this machine's paths), source lines, intermediate shapes."""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _store_half(model: onnx.ModelProto) -> str:
    onnx = require("onnx", "export")
    large = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= _SMALLEST_HALVED
    ]
    precision = "fp32"
    for tensor in large:
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        precision = "fp16"
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        cast = onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    return precision
