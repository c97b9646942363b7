#!/usr/bin/env bash
# onnxruntime-gpu 1.31.1, aarch64 wheel: it installs on a Jetson and holds no code that a Jetson's GPU can run.
#
# Source: the wheel itself; `cuobjdump --list-elf --list-ptx` (CUDA 13) lists sm_89, sm_90a, sm_120a and sm_121a, no PTX.
#
# The index has had aarch64 wheels since 1.29, and Jetson is the usual aarch64 machine with an NVIDIA GPU. But these are for
# Grace, Ada and DGX Spark: machine code runs on later GPUs of the same major number only, and PTX, which a driver could
# translate, is left out. Orin is 8.7, Thor 11.0. Build ONNX Runtime for them, or use TensorRT.
#
# Seen: machine code 8.9 9.0 12.0 12.1; PTX none; runs on Orin (8.7) no, on Thor (11.0) no, on GH200 (9.0) yes
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
    --platform manylinux_2_34_aarch64 --python-version 3.12 onnxruntime-gpu==1.31.1

"$work/venv/bin/python" - "$work"/onnxruntime_gpu-*.whl <<'PY'
import struct
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    data = wheel.read("onnxruntime/capi/libonnxruntime_providers_cuda.so")
machine_code, ptx = set(), set()
start = 0
while (start := data.find(b"\x50\xed\x55\xba", start)) >= 0:  # a container of GPU code
    _, version, header, length = struct.unpack_from("<IHHQ", data, start)
    if version != 1 or start + header + length > len(data):
        start += 4
        continue
    entry, start = start + header, start + header + length
    while entry < start:
        kind, _, header, length, number = struct.unpack_from("<HHIQ12xI", data, entry)
        {1: ptx, 2: machine_code}.get(kind, set()).add(divmod(number, 10))
        entry += header + length


def runs(gpu):
    return any(code[0] == gpu[0] and code <= gpu for code in machine_code) or any(code <= gpu for code in ptx)


def dotted(codes):
    return " ".join("{}.{}".format(*code) for code in sorted(codes)) or "none"


seen = {"Orin (8.7)": runs((8, 7)), "Thor (11.0)": runs((11, 0)), "GH200 (9.0)": runs((9, 0))}
answers = ", on ".join(f"{gpu} {'yes' if can else 'no'}" for gpu, can in seen.items())
print(f"machine code {dotted(machine_code)}; PTX {dotted(ptx)}; runs on {answers}")
if list(seen.values()) != [False, False, True]:
    sys.exit("changed: expected no, no, yes")
PY
