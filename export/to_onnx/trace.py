"""From a torch module to an ONNX file: small, without the exporter's output, and the same bytes every time."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch
from torch import nn

from wise_edge.export.to_onnx import edit as onnx_edit
from wise_edge.export.to_onnx.edit import DATA_SUFFIX, save_onnx

OPSET = 20
_SMALLEST_HALVED = 256  # elements; for fewer, a Cast node costs more than it saves
_SMALLEST_EXTERNAL = 1024  # bytes; smaller arrays, from which shapes are computed, stay in the graph
_ALIGNMENT = 4096  # bytes; runtimes map weights into memory page by page


def export_onnx(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    path: Path,
    dynamic: tuple[Any, ...] | None = None,
) -> None:
    """Export a module to a file; weights above 2 GB go to a second one (see `edit.save_onnx`).

    The graph computes in float32; large weights that half precision represents exactly are stored in it and cast.

    Args:
        module: in evaluation mode.
        example: its arguments.
        inputs: names of the arrays in `example`, nested ones in order.
        outputs: names of the arrays that it returns.
        path: the file to write.
        dynamic: for each argument its dynamic dimensions, as for `torch.export`.
    """
    with torch.no_grad(), _quiet():
        _match_exactly()
        program: Any = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    weights: Mapping[str, Any] = program.model.graph.initializers
    if sum(value.const_value.nbytes for value in weights.values()) > onnx_edit.LARGEST_FILE:
        _save_streamed(program.model, path)
    else:
        model = program.model_proto
        _strip(model)
        _store_half(model)
        save_onnx(model, path)
    del program, weights
    _forget_graphs()


@cache
def _match_exactly() -> None:
    """Let onnxscript's rewrite rules match numbers exactly.

    By default x + 1e-15 is x + 0 to them, and deleted: the quotient that it kept finite becomes 0 / 0. Source:
    `Constant` in onnxscript/rewriter/_pattern_ir.py of onnxscript 0.7, whose tolerance nothing else sets.
    """
    from onnxscript.rewriter import pattern

    for thing in gc.get_objects():
        if type(thing) is pattern.Constant:
            thing._rel_tol = thing._abs_tol = 0.0


def _forget_graphs() -> None:
    """Clear onnxscript's global rewrite rules, which keep the last graph they matched, and with it torch's weights.

    Otherwise a policy of 3B would stay in memory (onnxscript 0.7).
    """
    for thing in gc.get_objects():
        if type(thing).__name__.endswith("PatternMatcher"):
            for name in ("_current_node", "_graph", "_match"):
                thing.__dict__.pop(name, None)


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
    """Drop data that no runtime reads: stack traces (with paths of this machine), source lines, intermediate shapes."""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _store_half(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            half = _exact_half(onnx.numpy_helper.to_array(tensor))
            if half is not None:
                _cast_back(model, tensor, onnx.numpy_helper.from_array(half))


def _exact_half(values: npt.NDArray[Any]) -> npt.NDArray[np.float16] | None:
    """Return many values in half precision if it represents them exactly; else None."""
    if values.dtype != np.float32 or values.size < _SMALLEST_HALVED:
        return None
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None


def _cast_back(model: onnx.ModelProto, tensor: onnx.TensorProto, stored: onnx.TensorProto) -> None:
    """Store a weight in another type, and cast it back at the beginning of the graph."""
    name = tensor.name
    tensor.CopyFrom(stored)
    tensor.name = f"{name}.half"
    cast = onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, cast)


def _save_streamed(model: onnx_ir.Model, path: Path) -> None:
    """Write a model with its weights in a second file, one by one, so that only torch holds all of them in memory."""
    fp16_arithmetic = set()
    with path.with_name(path.name + DATA_SUFFIX).open("wb") as data:
        weights: Mapping[str, Any] = model.graph.initializers
        for name, value in weights.items():
            array = value.const_value.numpy()
            if array.nbytes < _SMALLEST_EXTERNAL:
                continue
            kind = value.const_value.dtype
            if (half := _exact_half(array)) is not None:
                array, kind = half, onnx_ir.DataType.FLOAT16
                fp16_arithmetic.add(name)
            data.write(b"\0" * (-data.tell() % _ALIGNMENT))
            place = data.tell()
            data.write(np.ascontiguousarray(array).data)
            value.const_value = onnx_ir.ExternalTensor(
                Path(data.name).name,
                place,
                array.nbytes,
                kind,
                shape=onnx_ir.Shape(array.shape),
                name=name,
                base_dir=path.parent,
            )
    proto = onnx_ir.to_proto(model)
    _strip(proto)
    for tensor in proto.graph.initializer:
        if tensor.name in fp16_arithmetic:
            _cast_back(proto, tensor, tensor)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
