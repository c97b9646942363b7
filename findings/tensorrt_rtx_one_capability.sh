#!/usr/bin/env bash
# TensorRT for RTX 1.7.1.116: an engine for several GPUs fails as a whole if one of them lacks a number type.
#
# Source: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html ("portable across
# devices with compute capabilities 8.6, 8.9, and 12.0, if the model precisions are supported on the target architecture").
#
# That reads as if the engine served those of the listed GPUs that have the type. Instead there is no engine at all: fp8
# for RTX 40 and 50 builds, the same with RTX 30 in the list does not, though set_compute_capability accepted it. The
# builder returns None; only a logger gets the reason. Runs without a GPU.
#
# Seen:
#   float32 SM86 SM89         built
#   fp8     SM89 SM120        built
#   fp8     SM86 SM89 SM120   None: Cannot compile for target(s) sm86
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.22.0 numpy

"$work/venv/bin/python" - <<'PY'
import re
import sys

import numpy as np
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper


def write_graph(fp8):
    """y = x w, with both rounded to fp8 if wanted."""
    nodes, names = [], ["x", "w"]
    if fp8:
        for name in ("x", "w"):
            nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", "s", "z"], [f"{name}d"]))
        names = ["xd", "wd"]
    nodes.append(helper.make_node("MatMul", names, ["y"]))
    constants = [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")]
    if fp8:
        constants += [numpy_helper.from_array(np.float32(0.1), "s"), helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0])]
    shapes = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8])] for name in "xy"]
    graph = helper.make_graph(nodes, "product", *shapes, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def build(fp8, capabilities):
    """Return why there is no engine; None if there is one."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(write_graph(fp8))
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        assert config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    if builder.build_serialized_network(network, config) is not None:
        return None
    reason = re.search(r"Cannot compile for target\(s\) \S+?(?=,)", log.errors[0])
    return reason[0] if reason else log.errors[0]


changed = False
for fp8, capabilities, expected in (
    (False, ["SM86", "SM89"], True),
    (True, ["SM89", "SM120"], True),
    (True, ["SM86", "SM89", "SM120"], False),
):
    failure = build(fp8, capabilities)
    print(f"{'fp8' if fp8 else 'float32':<7} {' '.join(capabilities):<17} {f'None: {failure}' if failure else 'built'}")
    changed |= (failure is None) != expected
sys.exit("changed: expected built, built, None" if changed else 0)
PY
