#!/usr/bin/env bash
# ONNX Runtime 1.32.0, CPU: a graph whose weights alone are int8 has its activations rounded to int8, too.
#
# Source: onnxruntime_session_options_config_keys.h, session.qdq_matmulnbits_accuracy_level ("4: int8", the default).
#
# DequantizeLinear + MatMul in float32 is what exporters write for int8 weights, and a graph optimizer is expected to keep
# what a graph computes. From the "extended" level on (the default is higher) the pair becomes MatMulNBits with accuracy
# level 4, which quantizes the other input by blocks of 32. One large activation then drowns the 31 beside it.
#
# Seen (largest error, of the largest value; with an outlier: error of what the other activations add):
#   ORT_ENABLE_BASIC                 DequantizeLinear MatMul  error 0.00000, with an outlier 0.000
#   ORT_ENABLE_EXTENDED              MatMulNBits              error 0.00408, with an outlier 0.337
#   extended, accuracy level 1       MatMulNBits              error 0.00000, with an outlier 0.000
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy

cat > "$work/show.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weights = random.integers(-127, 128, (256, 64)).astype(np.int8)
scales = (random.random(64) * 0.01 + 0.001).astype(np.float32)
graph = helper.make_graph(
    [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dequantized"], axis=1),
        helper.make_node("MatMul", ["x", "dequantized"], ["y"]),
    ],
    "weight_only",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
    [numpy_helper.from_array(array, name) for name, array in zip("wsz", (weights, scales, np.zeros(64, np.int8)))],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnx.checker.check_model(model)
x = random.standard_normal((8, 256)).astype(np.float32)
spiked = x.copy()
spiked[:, 0] = 1000
dense = weights.astype(np.float32) * scales


def run(level, accuracy):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = sys.argv[1]
    if accuracy:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", accuracy)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    plain = np.abs(session.run(None, {"x": x})[0] - x @ dense).max() / np.abs(x @ dense).max()
    others = spiked @ dense - 1000 * dense[0]
    outlier = np.linalg.norm(session.run(None, {"x": spiked})[0] - spiked @ dense) / np.linalg.norm(others)
    return " ".join(node.op_type for node in onnx.load(sys.argv[1]).graph.node), float(plain), float(outlier)


changed = False
for label, level, accuracy, exact in (
    ("ORT_ENABLE_BASIC", "ORT_ENABLE_BASIC", None, True),
    ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_EXTENDED", None, False),
    ("extended, accuracy level 1", "ORT_ENABLE_EXTENDED", "1", True),
):
    nodes, plain, outlier = run(level, accuracy)
    print(f"{label:<32} {nodes:<24} error {plain:.5f}, with an outlier {outlier:.3f}")
    changed |= exact != (plain < 1e-4 and outlier < 1e-3)
sys.exit("changed: expected errors at the extended level alone" if changed else 0)
PY
"$work/venv/bin/python" "$work/show.py" "$work/optimized.onnx"
