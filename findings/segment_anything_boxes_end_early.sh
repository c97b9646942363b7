#!/usr/bin/env bash
# segment-anything 1.0's automatic mask generator gives boxes that are a pixel less wide and less high than their masks.
#
# Its docstring calls `bbox` "the box around the mask, in XYWH format", and with output_mode="coco_rle" it stands beside
# COCO run lengths, whose own box is pycocotools' `toBbox` (https://cocodataset.org/#format-data). `batched_mask_to_box`
# (https://github.com/facebookresearch/segment-anything, segment_anything/utils/amg.py) takes the largest index as the
# right and lower edge, and `box_xyxy_to_xywh` subtracts without adding 1. Who crops an image to the box loses a row and
# a column, and a mask of one column has a box without an area, which suppression by overlap never removes.
#
# Seen on 2026-11-30, Python 3.11, torch 2.14.1: a mask of columns 4 to 9 and rows 3 to 5 has the bbox [4, 3, 5, 2], and
# pycocotools' box of the same record's run lengths is [4, 3, 6, 3].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    segment-anything==1.0 torch==2.14.1 torchvision==0.29.1 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch
from pycocotools import mask as coco_masks
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

torch.manual_seed(0)
sam = Sam(
    ImageEncoderViT(img_size=64, patch_size=16, embed_dim=32, depth=1, num_heads=2, out_chans=32),
    PromptEncoder(embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4),
    MaskDecoder(
        transformer_dim=32,
        transformer=TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=32, num_heads=2),
        num_multimask_outputs=3,
    ),
).eval()
generator = SamAutomaticMaskGenerator(
    sam, points_per_side=1, pred_iou_thresh=0, stability_score_thresh=0, output_mode="coco_rle"
)
logits = torch.full((1, 1, 16, 20), -9.0)
logits[..., 3:6, 4:10] = 9.0  # what the decoder drew, in place of what this untrained one would


def predict(*points, **options):
    return logits, torch.ones(1, 1), None


generator.predictor.predict_torch = predict
(record,) = generator.generate(np.zeros((16, 20, 3), np.uint8))
own, of_coco = record["bbox"], coco_masks.toBbox(record["segmentation"]).tolist()
print(f"bbox {own}; pycocotools' box of its run lengths {of_coco}; area {record['area']}")
if [own, of_coco] != [[4, 3, 5, 2], [4, 3, 6, 3]]:
    raise SystemExit("changed: the generator's boxes hold their masks")
PYTHON
