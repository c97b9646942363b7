#!/usr/bin/env bash
# mobilesam-mirror 1.0.0 (MobileSAM's own code): sam_model_registry["vit_t"](checkpoint=...) ignores learned biases.
#
# Source: `build_sam_vit_t` in mobile_sam/build_sam.py calls eval() and loads the file afterwards, and `Attention.train` in
# mobile_sam/modeling/tiny_vit_sam.py reads the biases of attention by distance at eval() and keeps what it read
# (https://github.com/ChaoningZhang/MobileSAM). The README calls eval() once more, which reads them again; a program that
# trusts the function, as it may with segment-anything's, gets masks of a model whose biases are those of a fresh one.
#
# Seen:
#   after the registry's call: the biases in use are 0 everywhere, the loaded ones are not
#   largest difference of the embedding before and after a second eval(): 0.8
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 mobilesam-mirror==1.0.0

cd "$work"
"$work/venv/bin/python" -W ignore - 2>"$work/log" <<'PY' || { tail -3 "$work/log" >&2; exit 1; }
import sys

import torch
from mobile_sam import sam_model_registry

torch.manual_seed(0)
state = sam_model_registry["vit_t"]().state_dict()
for name in state:
    if name.endswith("attention_biases"):
        torch.nn.init.normal_(state[name])
torch.save(state, "mobile_sam.pt")

model = sam_model_registry["vit_t"](checkpoint="mobile_sam.pt")
assert not model.training
attention = model.image_encoder.layers[1].blocks[0].attn
stale = not attention.ab.any() and bool(attention.attention_biases.any())
print("after the registry's call: the biases in use are", "0 everywhere, the loaded ones are not" if stale else "the loaded ones")
image = torch.randn(1, 3, 1024, 1024)
with torch.no_grad():
    before = model.image_encoder(image)
    difference = float((model.eval().image_encoder(image) - before).abs().max())
print(f"largest difference of the embedding before and after a second eval(): {difference:.1f}")
if not stale or difference < 0.1:
    print("changed: expected biases of zero until eval() is called again")
    sys.exit(1)
PY
