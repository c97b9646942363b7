#!/usr/bin/env bash
# TRL 1.16.0: making a trainer tells huggingface.co of it, also with report_to="none".
#
# Source: `_send_telemetry` in trl/trainer/base_trainer.py: trainer, model architecture, GPU, number of processes, how the
# data was loaded; not in CI, nor with HF_HUB_DISABLE_TELEMETRY=1 or HF_HUB_OFFLINE=1.
#
# A good engineer would guess that report_to="none" means that nothing is reported, and that a training from a model, a
# tokenizer and data that were all made in memory asks no hub. HF_ENDPOINT leads the request to a server on this machine
# here, so that nobody is contacted.
#
# Seen:
#   report_to="none"             HEAD /api/telemetry/trl/SFTTrainer
#   HF_HUB_DISABLE_TELEMETRY=1   (nothing)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 transformers==5.24.0 trl==1.16.0 huggingface_hub==2.4.0

cat >"$work/train.py" <<'PYTHON'
import http.server, os, sys, threading, time

seen = []

class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        seen.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass

hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import SFTConfig, SFTTrainer

words = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1, "red": 2, "ring": 3}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=4, **size))
settings = SFTConfig(output_dir=sys.argv[1], report_to="none", use_cpu=True, bf16=False)
SFTTrainer(model, settings, train_dataset=Dataset.from_list([{"text": "red ring"}]), processing_class=tokenizer)
time.sleep(3)  # the request is sent by another thread
print(*(line for line in seen if "telemetry" in line), sep="\n")
PYTHON

asked() { # what a trainer asks the hub; arguments are settings
    env -u CI -u HF_HUB_DISABLE_TELEMETRY -u DISABLE_TELEMETRY -u DO_NOT_TRACK -u HF_HUB_OFFLINE HOME="$work" "$@" \
        "$work/venv/bin/python" "$work/train.py" "$work/run" 2>/dev/null
}
expect() {
    printf '%-28s %s\n' "$1" "${3:-(nothing)}"
    [[ $3 == $2 ]] || { echo "changed: expected '$2'"; exit 1; }
}

expect 'report_to="none"' 'HEAD /api/telemetry/trl/*' "$(asked)"
expect 'HF_HUB_DISABLE_TELEMETRY=1' '' "$(asked HF_HUB_DISABLE_TELEMETRY=1)"
