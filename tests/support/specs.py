"""Specs of a policy and a segmenter that no file belongs to."""

from __future__ import annotations

from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.policy.spec import PolicySpec
from wise_edge.sam.spec import SamSpec

POLICY = PolicySpec(
    family="qwen2_5_vl",
    picture=PictureGeometry.square(112),
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    image_mean=(0.5, 0.4, 0.3),
    image_std=(0.2, 0.2, 0.3),
    prompts=EMBEDDED,
    default_variant="wise-s",
    image_token="<|image_pad|>",
    eos_tokens=("<|im_end|>",),
    hidden_size=64,
    num_layers=2,
    num_kv_heads=2,
    head_dim=16,
    max_positions=256,
)


SAM = SamSpec("segment_anything", 64, 32, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)
