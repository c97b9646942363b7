#!/usr/bin/env bash
# transformers 5.24.0: a prompt for one object of a Sam2VideoModel session changes the masks of the other objects.
#
# Source: `_batch_encode_memories` in transformers/models/sam2_video/modeling_sam2_video.py passes
# `is_mask_from_pts=any(...)` of all objects, so on a frame where one object has a prompt the masks of all are rounded to
# 0 and 1 before they are remembered. SAM 2's own predictor asks each object
# (https://github.com/facebookresearch/sam2/blob/main/sam2/sam2_video_predictor.py), and so does EdgeTamVideoModel.
#
# Two objects are prompted on frame 0 and followed; a second prompt for the first on frame 1 should leave the second as it
# is. A session for each object does.
#
# Seen:
#   one session for both       the second object's logits on frame 2 differ by 2.4e-01
#   a session for each object  the second object's logits on frame 2 differ by 0.0e+00
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 pillow

cd "$work"
cat >check.py <<'PY'
import math
import sys

import torch
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

torch.manual_seed(3)
backbone = Sam2HieraDetConfig(
    hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 2, 3, 1], embed_dim_per_stage=[8, 16, 32, 64],
    num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 2, 6, 3], global_attention_blocks=[5],
)
vision = Sam2VisionConfig(
    backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=128,
    backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
)
config = Sam2VideoConfig(
    vision_config=vision, prompt_encoder_config={"hidden_size": 128, "image_size": 64},
    mask_decoder_config={"hidden_size": 128, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    image_size=64, memory_attention_hidden_size=128, memory_attention_rope_feat_sizes=[4, 4],
    memory_encoder_hidden_size=128, mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
)
model = Sam2VideoModel(config).eval()
with torch.no_grad():
    for name, values in model.named_parameters():
        if values.ndim >= 2:
            values.normal_(std=1 / math.sqrt(values[0].numel()))
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(20)  # every object is visible
frames = torch.randn(3, 3, 64, 64)


def prompt(session, number, time, box):
    place = session.obj_id_to_idx(number)
    corners = {"point_coords": torch.tensor([[box]]), "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32)}
    session.add_point_inputs(place, time, corners)
    session.obj_with_new_inputs.append(number)


def follow(numbers, corrected):
    """Return the second object's logits on frame 2."""
    session = Sam2VideoInferenceSession(dtype=torch.float32)
    for time, frame in enumerate(frames):
        if time == 0:
            for number in numbers:
                prompt(session, number, 0, [[4.0 * number, 8.0], [20.0 + 8 * number, 40.0]])
        if time == 1 and corrected and 1 in numbers:
            prompt(session, 1, 1, [[10.0, 10.0], [50.0, 50.0]])
        found = model(session, frame_idx=time, frame=frame)
    return found.pred_masks[-1]


together, apart = (
    float((follow(numbers, True) - follow(numbers, False)).abs().max()) for numbers in ((1, 2), (2,))
)
print(f"one session for both       the second object's logits on frame 2 differ by {together:.1e}")
print(f"a session for each object  the second object's logits on frame 2 differ by {apart:.1e}")
if together < 1e-3 or apart:
    print("changed: expected a difference in one session alone")
    sys.exit(1)
PY
"$work/venv/bin/python" check.py 2>"$work/log" || { tail -3 "$work/log" >&2; exit 1; }
