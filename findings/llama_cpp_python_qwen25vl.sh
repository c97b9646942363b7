#!/usr/bin/env bash
# llama-cpp-python 0.3.36: Qwen25VLChatHandler drops the newline with which its template ends.
#
# Source: https://jinja.palletsprojects.com/en/stable/api/#jinja2.Environment ("keep_trailing_newline ... The default is
# False, which causes a single newline, if present, to be stripped from the end of the template").
#
# The handler's template ends with "<|im_start|>assistant\n", as Qwen2.5-VL was trained, and reads right. It is rendered by
# Jinja with trim_blocks and lstrip_blocks alone, so the prompt ends one token early and the model has to begin its answer
# with the newline. llama.cpp's own "chatml" keeps it. Other handlers share the environment; those whose template ends
# otherwise are not hurt.
#
# The package is not compiled here: template and environment are taken from its source.
#
# Seen:
#   template ends with    '<|im_start|>assistant\n'
#   llama.cpp's chatml    '<|im_start|>assistant\n'
#   prompt ends with      '<|im_start|>assistant'
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jinja2==3.1.6
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"

"$work/venv/bin/python" - "$work/llama_cpp_python-0.3.36" <<'PY'
import ast
import re
import sys
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

root = Path(sys.argv[1])
classes = {
    node.name: node
    for node in ast.parse((root / "llama_cpp/llama_chat_format.py").read_text()).body
    if isinstance(node, ast.ClassDef)
}
assigned = [node for node in classes["Qwen25VLChatHandler"].body if isinstance(node, ast.Assign)]
template = next(ast.literal_eval(node.value) for node in assigned if node.targets[0].id == "CHAT_FORMAT")
(call,) = [  # of the base class, whose __call__ the handler uses
    node
    for node in ast.walk(classes["Llava15ChatHandler"])
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ImmutableSandboxedEnvironment"
]
settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello"}]
prompt = ImmutableSandboxedEnvironment(**settings).from_string(template).render(messages=messages)
chatml = re.search(r'"(<\|im_start\|>assistant\\n)"', (root / "vendor/llama.cpp/src/llama-chat.cpp").read_text())

ends = (template[-22:], chatml[1].replace("\\n", "\n") if chatml else "", prompt[prompt.rindex("<|im_start|>") :])
for label, end in zip(("template ends with", "llama.cpp's chatml", "prompt ends with"), ends):
    print(f"{label:<21} {end!r}")
if ends != ("<|im_start|>assistant\n", "<|im_start|>assistant\n", "<|im_start|>assistant"):
    sys.exit("changed: expected a prompt without the newline of the template")
PY
