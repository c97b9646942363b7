#!/usr/bin/env bash
# transformers 5.24.0: a generation config that is greedy and has a temperature is loaded, and saved as it is; once any
# entry was set in it, the padding token for example, saving raises ValueError.
#
# Source: transformers/generation/configuration_utils.py, GenerationConfig.save_pretrained: `validate(strict=was_modified)`.
# Trainer sets the special tokens of the tokenizer in it, so a training ends at its first checkpoint. Published folders
# have such configs: https://github.com/QwenLM/Qwen3-ASR/issues/210, https://github.com/haotian-liu/LLaVA/issues/1144.
#
# A good engineer who has seen that a model can be loaded and saved again would guess that it can still be saved when the
# padding token is set.
#
# Seen:
#   as loaded               saved
#   pad_token_id set        ValueError: GenerationConfig is invalid:
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
echo '{"do_sample": false, "temperature": 0.1, "eos_token_id": 2}' > "$work/generation_config.json"

expect() { # name, Python that changes `config`, expected line
    local line
    line=$(TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" -c "
import sys
from transformers import GenerationConfig
config = GenerationConfig.from_pretrained(sys.argv[1])
$2
try:
    config.save_pretrained(sys.argv[1] + '/saved')
    print('saved')
except ValueError as error:
    print('ValueError:', str(error).splitlines()[0].strip())
" "$work" 2> /dev/null)
    printf '%-22s %s\n' "$1" "$line"
    [ "$line" = "$3" ] || { echo "changed: expected '$3'"; exit 1; }
}

expect 'as loaded' 'pass' 'saved'
expect 'pad_token_id set' 'config.pad_token_id = 0' 'ValueError: GenerationConfig is invalid:'
