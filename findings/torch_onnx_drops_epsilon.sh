#!/usr/bin/env bash
# torch 2.14.1 with onnxscript 0.7.2: torch.onnx.export deletes an addition of 1e-8 or less, and the graph returns NaN.
#
# Source: https://docs.pytorch.org/docs/stable/onnx_export.html (`optimize=True` is the default), and `Constant` in
# onnxscript/rewriter/_pattern_ir.py: the rule that deletes `x + 0` matches zero within 1e-8.
#
# `x / (y + 1e-15)` keeps a quotient finite where both are zero: the linear attention of EfficientViT and of its SAM does
# it. The exported graph divides by y itself. The export succeeds, and random input shows no difference.
#
# Seen:
#   epsilon 1e-07  torch [0.0, 1.0]  graph [0.0, 1.0]  operators Add Div
#   epsilon 1e-09  torch [0.0, 1.0]  graph [nan, 1.0]  operators Div
#   epsilon 1e-15  torch [0.0, 1.0]  graph [nan, 1.0]  operators Div
#   epsilon 1e-15  optimize=False  graph [0.0, 1.0]  operators Add Div
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0

cd "$work"
"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { tail -3 "$work/log" >&2; exit 1; }
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch

warnings.simplefilter("ignore")


class Quotient(torch.nn.Module):
    def __init__(self, epsilon):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x, y):
        return x / (y + self.epsilon)


changed = False
inputs = torch.tensor([0.0, 2.0]), torch.tensor([0.0, 2.0])
for epsilon, optimize, kept in ((1e-7, True, True), (1e-9, True, False), (1e-15, True, False), (1e-15, False, True)):
    module = Quotient(epsilon).eval()
    torch.onnx.export(module, inputs, "graph.onnx", input_names=["x", "y"], dynamo=True, optimize=optimize, verbose=False)
    names = [node.op_type for node in onnx.load("graph.onnx").graph.node if node.op_type != "Constant"]
    session = onnxruntime.InferenceSession("graph.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(None, dict(zip("xy", (value.numpy() for value in inputs))))
    seen = f"torch {module(*inputs).tolist()}" if optimize else "optimize=False"
    print(f"epsilon {epsilon:g}  {seen}  graph {got.tolist()}  operators {' '.join(names)}", flush=True)
    changed |= bool(np.isfinite(got).all()) != kept
if changed:
    print("changed: expected a graph without NaN for 1e-7 and without optimization alone")
sys.exit(changed)
PY
