#!/usr/bin/env bash
# onnxruntime-gpu 1.31.1: it does not find the CUDA that its own extras [cuda,cudnn] install, until preload_dlls() is called.
#
# Source: the wheel's libonnxruntime_providers_cuda.so, whose run path is $ORIGIN alone, and `onnxruntime.preload_dlls`
# (https://onnxruntime.ai/docs/install/#preload-shared-libraries).
#
# `pip install onnxruntime-gpu[cuda,cudnn]` brings 2 GB of NVIDIA's wheels, and a session asked for CUDA then starts on the
# CPU, as without them: a warning names libcublasLt, which lies in site-packages. Importing torch first would hide it. One
# call of preload_dlls() before the first session finds them. No GPU is needed to see it: the next library that is missing
# then is the driver's.
#
# Seen: without it libcublasLt.so.13, with it libcuda.so.1; provider CPUExecutionProvider
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'onnxruntime-gpu[cuda,cudnn]==1.31.1' \
    nvidia-cublas==13.10.0.20 nvidia-cudnn-cu13==9.28.1.4 nvidia-cuda-runtime==13.5.37 onnx==1.23.2

cat > "$work/try.py" <<'PY'
import sys

import onnx
import onnxruntime
from onnx import TensorProto, helper

if "preload" in sys.argv:
    onnxruntime.preload_dlls()
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
print("provider", session.get_providers()[0])
PY

missing() {
    "$work/venv/bin/python" "$work/try.py" "$@" 2>&1 | grep -o 'with error: [^:]*\|provider [A-Za-z]*$' | sed 's/with error: //' | paste -sd ' '
}

without=$(missing)
with=$(missing preload)
echo "without it: $without"
echo "with it: $with"
case $with in
    *CUDAExecutionProvider) echo "not shown: this machine has a GPU's driver; without preload_dlls: $without" ;;
    "libcuda.so.1 provider CPUExecutionProvider") ;;
    *) echo "changed: preload_dlls() no longer leads to the driver" && exit 1 ;;
esac
[[ $without == "libcublasLt.so.13 provider CPUExecutionProvider" ]] \
    || { echo "changed: the libraries of the wheels are found without preload_dlls()"; exit 1; }
