#!/usr/bin/env bash
# segment-anything-hq 0.3: the light model that its own registry loads does not use the file's attention biases.
#
# Source: https://github.com/SysCV/sam-hq/blob/main/segment_anything/build_sam.py (`build_sam_vit_t` calls `eval()`, then
# `load_state_dict`), and modeling/tiny_vit_sam.py, where attention copies its biases to a buffer when it is put into
# evaluation mode. MobileSAM's code, of which it is a copy, does the same.
#
# The load says that all keys match, and the biases are in the state; attention adds those from before, zeros. Calling
# `eval()` once more, which should change nothing, takes the loaded ones.
#
# Seen:
#   <All keys matched successfully>
#   biases in the file up to 3.89, used 0.00, after another eval() 3.89
#   embedding changes by 8 %
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  segment-anything-hq==0.3 timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy

cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
import warnings

warnings.simplefilter("ignore")

import torch
from segment_anything_hq import sam_model_registry

def largest_bias(model):
    """The largest bias that attention adds in evaluation mode."""
    return max(module.ab.abs().max().item() for module in model.modules() if hasattr(module, "ab"))

torch.manual_seed(0)
trained = sam_model_registry["vit_tiny"]()
for name, parameter in trained.named_parameters():
    if "attention_biases" in name:
        torch.nn.init.normal_(parameter)
torch.save(trained.state_dict(), "trained.pth")
loaded = sam_model_registry["vit_tiny"](checkpoint="trained.pth")
stored = max(value.abs().max().item() for name, value in loaded.state_dict().items() if "attention_biases" in name)
image = torch.randn(1, 3, 1024, 1024)
with torch.no_grad():
    first, _ = loaded.image_encoder(image)
    used = largest_bias(loaded)
    loaded.eval()
    again, _ = loaded.image_encoder(image)
print(f"biases in the file up to {stored:.2f}, used {used:.2f}, after another eval() {largest_bias(loaded):.2f}")
print(f"embedding changes by {100 * ((again - first).norm() / again.norm()).item():.0f} %")
if used or not stored:
    sys.exit("changed: the loaded biases are used at once")
PY
