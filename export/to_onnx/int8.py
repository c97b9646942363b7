"""Static int8 for ONNX graphs: weights by output channel, activations by calibration, written as Q/DQ pairs.

Only products with constant weights (linear layers and convolutions) are quantized. What lies between them stays float:
attention's products of activations, softmax and norms are where eight bits cost accuracy, and hold no weights. What a
product gives is left as it is too; only what goes into the next one is rounded.
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
        source: an ONNX file of `export_onnx`; inputs and outputs stay as they are.
        target: the file to write, with a second one named by `DATA_SUFFIX` where the first is above 2 GiB.
        batches: inputs by name, typical ones: what activations reach over them is the range that eight bits cover.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
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
            # TensorRT wants zero to be zero, and biases in float.
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
                "ActivationSymmetric": True,
                "QuantizeBias": False,
            },
        )
    onnx.checker.check_model(str(target))


def _without_weights(model: onnx.ModelProto) -> list[str]:
    """Return the products of two activations."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in _QUANTIZED and node.input[1] not in weights]


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Batch | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    # It advises on the root logger to preprocess first: there is nothing left to fold or infer here.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
