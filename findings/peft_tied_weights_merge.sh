#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.24.0: `merge_and_unload` of a LoRA that `ensure_weight_tying=True` keeps tied gives another
# model than the adapter itself, without an error.
#
# Source: the documentation of LoraConfig's `ensure_weight_tying`
# (https://huggingface.co/docs/peft/package_reference/lora), and https://github.com/huggingface/peft/issues/2777, to which
# PEFT's warning about tied layers without that option points. Merging adds the product of both matrices in place, to the
# embedding and then to the head, which is the same tensor (peft/tuners/tuners_utils.py, _unload_and_optionally_merge).
#
# A good engineer would guess that the option that exists for tied layers makes their merge right.
#
# Seen (largest difference of logits over the largest logit, and how often the embedding has the adapter):
#   tied head, ensure_weight_tying=True     off by 1.0000, added 2.00 times
#   untied head, LoRA on both               off by 0.0000, added 1.00 times
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0 peft==0.21.2

cat > "$work/show.py" <<'PYTHON'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

warnings.simplefilter("ignore")
tokens = torch.arange(20)[None]


def merge(tied: bool, **options: object) -> tuple[float, float]:
    """Return how far merged logits are off, and how often the adapter is in the embedding."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied,
        )
    ).eval()
    before = model.get_input_embeddings().weight.detach().clone()
    config = LoraConfig(r=4, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False, **options)
    adapter = get_peft_model(model, config).eval()
    delta = adapter.base_model.model.model.embed_tokens.get_delta_weight("default").detach().clone()
    with torch.no_grad():
        expected = adapter(input_ids=tokens).logits
        merged = adapter.merge_and_unload()
        off = (merged(input_ids=tokens).logits - expected).abs().max() / expected.abs().max()
    change = merged.get_input_embeddings().weight.detach() - before
    return float(off), float((change * delta).sum() / (delta * delta).sum())


off, times = merge(True, ensure_weight_tying=True)
print(f"tied head, ensure_weight_tying=True     off by {off:.4f}, added {times:.2f} times")
right, once = merge(False)
print(f"untied head, LoRA on both               off by {right:.4f}, added {once:.2f} times")
if abs(times - 2) > 0.01 or off < 0.01:
    sys.exit("changed: the tied adapter is no longer added twice")
if right > 1e-4 or abs(once - 1) > 0.01:
    sys.exit("changed: the adapter of an untied model is not merged exactly")
PYTHON
"$work/venv/bin/python" "$work/show.py"
