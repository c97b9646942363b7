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

from wise_edge.export.onnx_edit import save_onnx
from wise_edge.extras import require

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET = 20
_SMALLEST_HALVED = 256  # elements; below that a Cast node costs more than it saves


def export_onnx(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    path: Path,
    dynamic: tuple[Any, ...] | None = None,
) -> None:
    """Export a module to a file, and to a second one where its weights are above 2 GB (`onnx_edit.save_onnx`).

    The graph computes in float32; large weights that half precision holds exactly are stored in it and cast.

    Args:
        module: in evaluation mode.
        example: its arguments.
        inputs: names of the arrays in `example`, nested ones in order.
        outputs: names of what it returns.
        path: the file to write.
        dynamic: for each argument the dimensions that vary, as `torch.export` takes them.
    """
    torch = require("torch", "export")
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
    _store_half(model)
    save_onnx(model, path)


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


def _store_half(model: onnx.ModelProto) -> None:
    onnx = require("onnx", "export")
    large = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= _SMALLEST_HALVED
    ]
    for tensor in large:
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        cast = onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
