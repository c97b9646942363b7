"""Static int8 for ONNX graphs: weights per output channel, activations by calibration, written as Q/DQ pairs.

Only products with constant weights (linear layers and convolutions) are quantized. Everything between
them stays float: in attention's products of activations, softmax and norms eight bits cost accuracy and save no
weights. Outputs of products are not rounded either, only inputs.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime import quantization

from wise_edge.export.to_onnx.edit import DATA_SUFFIX, load_float32, save_onnx
from wise_edge.policy.graph_io import Batch

_QUANTIZED = ("MatMul", "Gemm", "Conv")


def quantize_int8(source: Path, target: Path, batches: Iterable[Batch]) -> None:
    """Write a graph whose linear layers and convolutions multiply eight bits.

    Args:
        source: an ONNX file of `export_onnx`; its inputs and outputs are unchanged.
        target: the file to write; weights above 2 GB go to a second one (`DATA_SUFFIX`).
        batches: typical inputs by name; the range of activations over them is what eight bits cover.
    """
    model = load_float32(source)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8.") as scratch, _quiet():
        whole = Path(scratch) / "float.onnx"
        save_onnx(model, whole, source)
        large = whole.with_name(whole.name + DATA_SUFFIX).exists()
        excluded = _without_weights(model)
        del model  # the quantizer reads the file again: one copy of the weights is enough
        quantization.quantize_static(
            whole,
            target,
            _Reader(batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=excluded,
            # Seven bits: on x86-64 without VNNI sums of two products of eight saturate (0.02 of error became 0.20).
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QInt8,
            use_external_data_format=large,
            # TensorRT requires a zero point of 0, and float biases.
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
                "ActivationSymmetric": True,
                "QuantizeBias": False,
            },
        )
    onnx.checker.check_model(str(target))


def _without_weights(model: onnx.ModelProto) -> list[str]:
    """Return the products of two activations, and those with a table for each row (attention's relative positions)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    tables = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 3}
    products = [node for node in model.graph.node if node.op_type in _QUANTIZED]
    return [node.name for node in products if node.input[1] not in weights - tables]


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Batch | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    # It recommends preprocessing on the root logger, but nothing is left to fold or infer here.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
