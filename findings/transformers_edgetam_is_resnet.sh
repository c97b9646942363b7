#!/usr/bin/env bash
# transformers 5.24.0: EdgeTamConfig() describes EdgeTAM on a ResNet-50. The default entry that names its trunk RepViT-M1 is
# spelt "archirecture", which the config keeps as an entry of its own. Model and config are made without a word; the first
# picture fails inside a convolution.
#
# Source: transformers/models/edgetam/configuration_edgetam.py, `sub_configs_defaults`; the default of
# `TimmWrapperConfig.architecture` is "resnet50". https://huggingface.co/docs/transformers/model_doc/edgetam makes a model
# from this default.
#
# A good engineer would guess that the default config is EdgeTAM's, and that an unknown entry is refused. Give it a
# `backbone_config` whose `architecture` is "repvit_m1".
#
# Seen:
#   architecture resnet50, archirecture repvit_m1
#   12950225 parameters; expected input[1, 1024, 64, 64] to have 384 channels, but got 1024 channels instead
#   with architecture=repvit_m1 9120641 parameters; masks [1, 1, 3, 256, 256]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 \
    timm==1.0.31 pillow

seen=$(HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2> "$work/stderr" <<'PYTHON'
import torch
from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVisionConfig, TimmWrapperConfig


def describe(config):
    model = EdgeTamModel(config).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    try:
        with torch.no_grad():
            out = model(pixel_values=torch.zeros(1, 3, 1024, 1024), input_points=torch.zeros(1, 1, 1, 2))
        return f"{count} parameters; masks {list(out.pred_masks.shape)}"
    except RuntimeError as error:
        return f"{count} parameters; {str(error).partition('], ')[2]}"


trunk = EdgeTamVisionConfig().backbone_config
print(f"architecture {trunk.architecture}, archirecture {trunk.archirecture}")
print(describe(EdgeTamConfig()))
right = TimmWrapperConfig(architecture="repvit_m1", model_args=trunk.model_args)
print("with architecture=repvit_m1", describe(EdgeTamConfig(vision_config=EdgeTamVisionConfig(backbone_config=right))))
PYTHON
) || { tail -1 "$work/stderr"; exit 1; }
echo "$seen"
expected="architecture resnet50, archirecture repvit_m1
12950225 parameters; expected input[1, 1024, 64, 64] to have 384 channels, but got 1024 channels instead
with architecture=repvit_m1 9120641 parameters; masks [1, 1, 3, 256, 256]"
[ "$seen" = "$expected" ] || { echo "changed: expected \"$expected\""; exit 1; }
