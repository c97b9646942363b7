"""FP8 (E4M3) for ONNX graphs: linear layers multiply eight-bit floats, written as Q/DQ pairs.

Weights have one scale per output channel, activations one per array, from the largest magnitude over typical inputs:
the form that TensorRT documents (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html)
and that GPUs of compute capability 8.9 and above multiply. Convolutions and attention products are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from wise_edge.export.to_onnx.blocks import is_matrix, output_axis
from wise_edge.export.to_onnx.edit import load_float32, load_light, replace_nodes, save_onnx, values_of
from wise_edge.export.to_onnx.ranges import measure_magnitudes
from wise_edge.policy.graph_io import Batch

_LINEAR = ("MatMul", "Gemm")
LARGEST_FP8 = 448.0
"""The largest magnitude that E4M3 holds (https://onnx.ai/onnx/technical/float8.html)."""


def quantize_fp8(source: Path, target: Path, batches: Iterable[Batch], keep: tuple[str, ...] = ()) -> None:
    """Write a graph whose linear layers multiply eight-bit floats.

    Args:
        source: an ONNX file of `export_onnx`.
        target: the file to write; weights above 2 GB go to a second one.
        batches: typical inputs by name, at least one.
        keep: names of graph outputs; the products that compute them stay float.
    """
    products = [node for node in load_light(source).graph.node if node.op_type in _LINEAR]
    ranges = measure_magnitudes(source, {node.input[0] for node in products}, batches)
    model = load_float32(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def is_rounded(node: onnx.NodeProto) -> bool:
        linear = node.op_type in _LINEAR and is_matrix(weights.get(node.input[1]))
        return linear and not set(node.output) & {*keep}

    rounding = _Rounding(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if is_rounded(node):
            activation, weight = node.input[0], node.input[1]
            nodes += rounding.round_activation(activation, ranges[activation])
            nodes += rounding.round_weight(weight, values_of(weights[weight], source), output_axis(node))
            node.input[0], node.input[1] = f"{activation}.fp8.float", f"{weight}.fp8.float"
        nodes.append(node)
    replace_nodes(model, nodes)
    save_onnx(model, target, source)


class _Rounding:
    """Adds Q/DQ pairs to a graph, one for each array."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._done: set[str] = set()

    def round_activation(self, name: str, largest: float) -> list[onnx.NodeProto]:
        if not self._begin(name):
            return []
        scale = np.float32(largest / LARGEST_FP8 if 0 < largest < np.inf else 1)
        parameters = self._parameters(name, np.array(scale))
        make = onnx.helper.make_node
        return [
            make("QuantizeLinear", [name, *parameters], [f"{name}.fp8"], f"{name}.quantize"),
            make("DequantizeLinear", [f"{name}.fp8", *parameters], [f"{name}.fp8.float"], f"{name}.dequantize"),
        ]

    def round_weight(self, name: str, values: npt.NDArray[np.float32], channels: int) -> list[onnx.NodeProto]:
        if not self._begin(name):
            return []
        scales = np.abs(values).max(axis=1 - channels) / np.float32(LARGEST_FP8)
        scales[scales == 0] = 1
        rounded = (values / np.expand_dims(scales, 1 - channels)).astype(self._fp8())
        self._add(onnx.numpy_helper.from_array(rounded, f"{name}.fp8"))
        inputs = [f"{name}.fp8", *self._parameters(name, scales)]
        return [
            onnx.helper.make_node(
                "DequantizeLinear", inputs, [f"{name}.fp8.float"], f"{name}.dequantize", axis=channels
            )
        ]

    def _begin(self, name: str) -> bool:
        fresh = name not in self._done
        self._done.add(name)
        return fresh

    def _parameters(self, name: str, scales: npt.NDArray[np.float32]) -> list[str]:
        """Store scales and zero points of an array; return their names."""
        zeros = np.zeros(scales.shape, self._fp8())
        names = [f"{name}.fp8.scale", f"{name}.fp8.zero"]
        for part, values in zip(names, (scales, zeros), strict=True):
            self._add(onnx.numpy_helper.from_array(values, part))
        return names

    def _add(self, tensor: Any) -> None:
        self._model.graph.initializer.append(tensor)

    def _fp8(self) -> Any:
        return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT8E4M3FN)
