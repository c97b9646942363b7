#!/usr/bin/env bash
# llama-cpp-python 0.3.36: the parameters of the low-level interface take `use_mmap = False` without a word, and the model
# is mapped all the same.
#
# Source: llama_cpp/llama_cpp.py of the package, whose llama_model_params has `load_mode` (llama.h, enum llama_load_mode)
# where it had `use_mmap` and `use_mlock`; ctypes (https://docs.python.org/3/library/ctypes.html#structures-and-unions) lets
# a Structure have any further attribute, which no C code reads.
#
# Code for older versions goes on to run and loads otherwise than it says: a file that is mapped gives other answers when
# it is written to, and ends the process when it is cut. `load_mode = LLAMA_LOAD_MODE_NONE` reads it.
#
# The package is not compiled here: the structure is taken from its source.
#
# Seen:
#   fields                 load_mode
#   use_mmap = False       accepted
#   bytes of the structure unchanged
#   load_mode = NONE       changed
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"

"$work/venv/bin/python" - "$work/llama_cpp_python-0.3.36/llama_cpp/llama_cpp.py" <<'PY'
import ast
import ctypes
import sys
from pathlib import Path

tree = ast.parse(Path(sys.argv[1]).read_text())
(found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "llama_model_params"]
(listed,) = [n.value for n in found.body if isinstance(n, ast.Assign) and n.targets[0].id == "_fields_"]
# Pointers to structures and callbacks are of one size each; the numbers keep their types.
kinds = {"c_int": ctypes.c_int, "c_int32": ctypes.c_int32, "c_bool": ctypes.c_bool, "c_float": ctypes.c_float}
fields = [(ast.literal_eval(f.elts[0]), kinds.get(getattr(f.elts[1], "attr", ""), ctypes.c_void_p)) for f in listed.elts]
params = type("llama_model_params", (ctypes.Structure,), {"_fields_": fields})()
names = [name for name, _ in fields if name in ("load_mode", "use_mmap")]
print(f"fields                 {', '.join(names)}")
params.load_mode = 1  # LLAMA_LOAD_MODE_MMAP
before = bytes(params)
params.use_mmap = False
print("use_mmap = False       accepted")
unchanged = bytes(params) == before
print(f"bytes of the structure {'unchanged' if unchanged else 'changed'}")
params.load_mode = 0  # LLAMA_LOAD_MODE_NONE
changed = bytes(params) != before
print(f"load_mode = NONE       {'changed' if changed else 'unchanged'}")
if (names, unchanged, changed) != (["load_mode"], True, True):
    sys.exit("changed: expected load_mode alone, and an attribute that changes nothing")
PY
