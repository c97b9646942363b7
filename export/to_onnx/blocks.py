"""Weights of 8 or 4 bits for ONNX graphs with float arithmetic: constant matrices followed by a DequantizeLinear.

Eight bits have one scale per output channel, four bits one per block of input channels, as TensorRT documents
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html). TensorRT for RTX
builds engines of both; none has run yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from wise_edge.export.to_onnx.edit import load_float32, replace_nodes, save_onnx, values_of

BLOCKS = (128, 64, 32)
"""Input channels that share a scale in four bits: the largest divisor of a row; rows without one keep eight bits."""
_SHRINK = np.linspace(0.7, 1.0, 13)
_INT4_OPSET = 21  # the first with INT4 and block_size
_SMALLEST = 1024  # elements; a smaller matrix is not worth a node


def quantize_weights(source: Path, target: Path, bits: int, keep_8_bits: tuple[str, ...] = ()) -> None:
    """Write a graph with its constant matrices rounded to 8 or 4 bits.

    Args:
        source: an ONNX file of `export_onnx`.
        target: the file to write; weights above 2 GB go to a second one.
        bits: 8 or 4.
        keep_8_bits: names of graph outputs; the products that compute them keep 8 bits.
    """
    model = load_float32(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and is_matrix(weights.get(node.input[1])):
            name, channels = node.input[1], output_axis(node)
            if name not in done:
                done.add(name)
                few = bits == 4 and not set(node.output) & set(keep_8_bits)
                values = values_of(weights[name], source)
                nodes.append(_dequantize(model, name, values, channels, 4 if few else 8))
            node.input[1] = f"{name}.dequantized"
        nodes.append(node)
    replace_nodes(model, nodes)
    if bits == 4:
        model.opset_import[0].version = max(model.opset_import[0].version, _INT4_OPSET)
        model.ir_version = max(model.ir_version, 10)
    save_onnx(model, target, source)


def is_matrix(tensor: onnx.TensorProto | None) -> bool:
    """Return whether a weight is a matrix large enough to round."""
    return tensor is not None and len(tensor.dims) == 2 and tensor.dims[0] * tensor.dims[1] >= _SMALLEST


def output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a product's second factor that runs over output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def _dequantize(
    model: onnx.ModelProto, name: str, values: npt.NDArray[np.float32], channels: int, bits: int
) -> onnx.NodeProto:
    """Store a rounded matrix in the graph; return the node that restores it."""
    block = next((size for size in BLOCKS if values.shape[1 - channels] % size == 0), None)
    options: dict[str, Any] = {"axis": channels}
    if bits == 4 and block is not None:
        rounded, scales = round_blocks(values, 1 - channels, block)
        packed = _pack(rounded)
        stored = onnx.helper.make_tensor(f"{name}.int4", onnx.TensorProto.INT4, values.shape, packed, raw=True)
        options = {"axis": 1 - channels, "block_size": block}
    else:
        rounded, scales = round_channels(values, channels)
        stored = onnx.numpy_helper.from_array(rounded, f"{name}.int8")
    model.graph.initializer.extend([stored, onnx.numpy_helper.from_array(scales, f"{name}.scale")])
    return onnx.helper.make_node(
        "DequantizeLinear", [stored.name, f"{name}.scale"], [f"{name}.dequantized"], f"{name}.dequantize", **options
    )


def round_channels(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round a matrix to 8 bits, one scale for each index along `axis`.

    Returns:
        int8 of the matrix's shape within -127 to 127, and float32 scales of one dimension.
    """
    scales = np.abs(values).max(axis=1 - axis) / np.float32(127)
    scales[scales == 0] = 1
    rounded = np.rint(values / np.expand_dims(scales, 1 - axis)).astype(np.int8)
    return rounded, scales


def round_blocks(
    values: npt.NDArray[np.float32], axis: int, block: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round a matrix to 4 bits with one scale per block along `axis`, chosen for the least squared error.

    A scale smaller than the largest magnitude requires clips that value and rounds the others more finely. Scales are
    positive, as TensorRT requires.

    Returns:
        int8 of the matrix's shape within -8 to 7, and float32 scales, blocks in place of `axis`.
    """
    rows = np.moveaxis(values, axis, -1)
    blocks = rows.reshape(rows.shape[0], -1, block)
    widest = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(7)
    widest[widest == 0] = 1
    best = np.full(widest.shape, np.inf, np.float32)
    rounded, scales = np.zeros(blocks.shape, np.int8), widest
    for shrink in _SHRINK:
        scale = (widest * shrink).astype(np.float32)
        tried = np.clip(np.rint(blocks / scale), -8, 7)
        error = np.square(tried * scale - blocks).sum(axis=-1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        scales = np.where(better, scale, scales)
        rounded = np.where(better, tried.astype(np.int8), rounded)
    return np.moveaxis(rounded.reshape(rows.shape), -1, axis), np.moveaxis(scales[..., 0], -1, axis)


def _pack(values: npt.NDArray[np.int8]) -> bytes:
    """Pack 4-bit integers two per byte, the first in the low half, as ONNX stores them."""
    halves = values.ravel().view(np.uint8) & 0xF  # complete blocks: an even number
    return bytes(halves[0::2] | (halves[1::2] << 4))
