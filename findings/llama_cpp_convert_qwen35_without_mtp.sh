#!/usr/bin/env bash
# llama.cpp as llama-cpp-python 0.3.36 ships it, transformers 5.24.0: llama.cpp's converter ends with an AssertionError
# without a message for a Qwen3.5 that transformers saved.
#
# Sources: conversion/qwen.py, _QwenMtpMixin.__init__: `assert self.opt_num_mtp_layers != 0`; transformers,
# models/qwen3_5/modeling_qwen3_5.py: `_keys_to_ignore_on_load_unexpected = [r"^mtp.*"]`.
# https://github.com/ggml-org/llama.cpp, https://github.com/huggingface/transformers
#
# Published checkpoints of Qwen3.5 hold layers that predict further tokens ("mtp."). transformers leaves them out when it
# loads one, without a word, so whatever it saves, a fine-tuned model for example, lacks them and names none in its config.
# The converter then asserts that there are some. With --no-mtp it goes on; nothing says so.
#
# A good engineer would guess that a folder which transformers saved can be converted, since the layers are an addition
# that the model runs without.
#
# Nothing is compiled: the converter is taken from the package's source. The model is random and has no tokenizer, so with
# --no-mtp the converter ends later, where it looks for one.
#
# Seen:
#   mtp. after load and save   0
#   converter                  AssertionError
#   converter --no-mtp         past the assertion
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0 sentencepiece==0.2.3 \
    pyyaml==6.0.4 requests==2.34.2
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
llama_cpp="$work/llama_cpp_python-0.3.36/vendor/llama.cpp"

kept=$(TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - "$work" 2> /dev/null <<'PY'
import sys
from pathlib import Path

import safetensors.torch
import torch
import transformers

published, saved = Path(sys.argv[1], "published"), Path(sys.argv[1], "saved")
text = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25, "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
vision = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
config = transformers.Qwen3_5Config(text_config=text, vision_config=vision)
transformers.Qwen3_5ForConditionalGeneration(config).save_pretrained(published)
file = published / "model.safetensors"
weights = safetensors.torch.load_file(file) | {"mtp.fc.weight": torch.ones(32, 64)}  # as a published checkpoint has
safetensors.torch.save_file(weights, file, metadata={"format": "pt"})

transformers.Qwen3_5ForConditionalGeneration.from_pretrained(published).save_pretrained(saved)
print(sum(name.startswith("mtp.") for name in safetensors.torch.load_file(saved / "model.safetensors")))
PY
)

convert() { # options
    "$work/venv/bin/python" "$llama_cpp/convert_hf_to_gguf.py" "$work/saved" --outfile "$work/out.gguf" "$@" 2>&1 || true
}

[ "$(convert | tail -n 1)" = AssertionError ] && plain=AssertionError || plain='something else'
convert --no-mtp | grep -q AssertionError && without=AssertionError || without='past the assertion'
printf '%-26s %s\n' 'mtp. after load and save' "$kept" 'converter' "$plain" 'converter --no-mtp' "$without"
if [ "$kept $plain $without" != '0 AssertionError past the assertion' ]; then
    echo 'changed: expected 0, an AssertionError, and none with --no-mtp'
    exit 1
fi
