#!/usr/bin/env bash
# transformers 5.24.0: Sam3TrackerModel never uses its embedding of "no memory". It adds it to the last level of the neck,
# the fourth, and the mask decoder takes the first three, so a mask on a single image differs from Meta's code, which drops
# the fourth level first (sam3 0.1.4: scalp=1 in `SAM3VLBackbone`, then `sam1_task_predictor.set_image`).
#
# Source: transformers/models/sam3_tracker/modeling_sam3_tracker.py, `get_image_embeddings` and `forward`:
# `feature_maps[-1] + self.no_memory_embedding`, then a zip with three sizes. `Sam3TrackerVideoModel.get_image_features`
# cuts the list (`feature_maps[:-1]`); Sam2Model's neck has three levels.
#
# A good engineer would guess that a weight which is trained, published, loaded and added has an effect.
#
# Seen: how far the image's embedding moves when each number of `no_memory_embedding` is raised by 1
#   Sam2Model         1.0
#   Sam3TrackerModel  0.0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 pillow

seen=$(HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2> "$work/stderr" <<'PYTHON'
import torch
from transformers import Sam2Config, Sam2Model, Sam3TrackerConfig, Sam3TrackerModel

torch.manual_seed(0)
small = {"hidden_size": 32, "num_attention_heads": 2}
decoder = {**small, "mlp_dim": 48, "iou_head_hidden_dim": 32}
neck = {"fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
hiera = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64], "blocks_per_stage": [1, 2, 3, 1],
    "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [4, 2, 6, 3], "global_attention_blocks": [5],
}
vit = {
    "model_type": "sam3_vit_model", **small, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": 56,
    "patch_size": 14, "window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 28,
}
sam2 = Sam2Config(
    vision_config={"model_type": "sam2_vision_model", "backbone_config": hiera, "backbone_channel_list": [64, 32, 16, 8], **neck},
    prompt_encoder_config={"hidden_size": 32, "image_size": 64}, mask_decoder_config=decoder,
)
sam3 = Sam3TrackerConfig(
    vision_config={"model_type": "sam3_vision_model", "backbone_config": vit, **neck},
    prompt_encoder_config={"hidden_size": 32, "image_size": 56, "patch_size": 14}, mask_decoder_config=decoder,
)
for kind, config, side in ((Sam2Model, sam2, 64), (Sam3TrackerModel, sam3, 56)):
    model, image = kind(config).eval(), torch.randn(1, 3, side, side)
    before = model.get_image_embeddings(image)[-1]
    with torch.no_grad():
        model.no_memory_embedding.add_(1)
    print(f"{kind.__name__:17} {(model.get_image_embeddings(image)[-1] - before).abs().max():.1f}")
PYTHON
) || { tail -1 "$work/stderr"; exit 1; }
echo "$seen"
expected="Sam2Model         1.0
Sam3TrackerModel  0.0"
[ "$seen" = "$expected" ] || { echo "changed: expected \"$expected\""; exit 1; }
