#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer of a folder without tokenizer.json and vocab.json gives a tokenizer without a
# vocabulary, without an error or a warning; every text encodes to no tokens at all.
#
# Source: transformers/models/qwen2/tokenization_qwen2.py, models/gpt2/tokenization_gpt2.py and others: since version 5 the
# constructors have defaults for `vocab` and `merges` and build an empty BPE from them, and from_pretrained calls them
# with what it finds. Before version 5 a missing file was an error
# (https://github.com/HabanaAI/vllm-hpu-extension/pull/106 shows it).
#
# A good engineer would guess that loading a tokenizer from a folder whose tokenizer files are missing (an interrupted
# download, a copy without large files) fails, as loading a model does.
#
# Seen:
#   Qwen2Tokenizer     vocabulary 1, 'find the mug' -> []
#   GPT2Tokenizer      vocabulary 1, 'find the mug' -> []
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0

expect() { # class, expected line
    local folder line
    folder=$(mktemp -d -p "$work")
    echo "{\"tokenizer_class\": \"$1\"}" > "$folder/tokenizer_config.json"
    echo '{"model_type": "qwen2"}' > "$folder/config.json"
    line=$(HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" -c "
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(f\"vocabulary {len(tokenizer)}, 'find the mug' -> {tokenizer('find the mug')['input_ids']}\")
" "$folder" 2> "$folder/stderr") || line=$(tail -1 "$folder/stderr")
    printf '%-18s %s\n' "$1" "$line"
    [ "$line" = "$2" ] || { echo "changed: expected \"$2\""; exit 1; }
}

expect Qwen2Tokenizer "vocabulary 1, 'find the mug' -> []"
expect GPT2Tokenizer "vocabulary 1, 'find the mug' -> []"
