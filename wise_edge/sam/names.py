"""The names that transformers gives to the tensors of segment-anything and SAM 2.

Source: the classes of https://github.com/huggingface/transformers/tree/main/src/transformers/models, `sam` and `sam2`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHARED_POSITIONS = "shared_image_embedding.positional_embedding"
"""The prompt encoder's, for the image; in transformers alone."""
VIDEO_PARTS = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_",
    "obj_ptr_",
    "spatial_perceiver.",
)
"""How the names of SAM 2's memory begin, which an image does not need."""

_PARTS = re.compile(r"(?:sam_)?(?:image_encoder|vision_encoder|prompt_encoder|mask_decoder)\.")
_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
_BOTH = (
    (r"^(sam_)?(prompt_encoder|mask_decoder)\.", r"\2."),
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"\.hf_token\.", ".hq_token."),
    (r"\.hf_mlp\.", ".hq_mask_mlp."),
    (r"(output_hypernetworks_mlps\.\d|_head|hq_mask_mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"(output_hypernetworks_mlps\.\d|_head|hq_mask_mlp)\.layers\.1\.", r"\1.layers.0."),
    (r"(output_hypernetworks_mlps\.\d|_head|hq_mask_mlp)\.layers\.2\.", r"\1.proj_out."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.norm(?=\d|_final)", ".layer_norm"),
)
_SAM = (
    (r"\.compress_vit_feat\.", ".compress_vit_"),
    (r"\.embedding_encoder\.", ".encoder_"),
    (r"\.embedding_maskfeature\.", ".mask_"),
    (r"_0\.(?=weight|bias)", "_conv1."),
    (r"_1\.(?=weight|bias)", "_norm."),
    (r"_3\.(?=weight|bias)", "_conv2."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.", "vision_encoder."),
)
_SAM2 = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.body\.", "vision_encoder.backbone.timm_model."),  # EdgeTAM's
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.mlp\.(layers\.0|lin1)\.", ".mlp.proj_in."),
    (r"\.mlp\.(layers\.1|lin2)\.", ".mlp.proj_out."),
    (r"\.out_proj\.", ".o_proj."),
)
_SAM3 = (
    (r"^detector\.backbone\.vision_backbone\.trunk\.", "vision_encoder.backbone."),
    (r"^detector\.backbone\.vision_backbone\.sam2_convs\.", "vision_encoder.neck.fpn_layers."),
    (r"\.dconv_2x2(_0)?\.", ".scale_layers.0."),
    (r"\.dconv_2x2_1\.", ".scale_layers.2."),
    (r"\.conv_1x1\.", ".proj1."),
    (r"\.conv_3x3\.", ".proj2."),
    (r"\.pos_embed$", ".embeddings.position_embeddings"),
    (r"\.patch_embed\.projection\.", ".embeddings.patch_embeddings.projection."),
    (r"\.ln_pre\.", ".layer_norm."),
    (r"\.blocks\.", ".layers."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)
_SAM3_MODEL = (
    (r"^(tracker_model\.)+", ""),
    (r"^detector_model\.vision_encoder\.backbone\.", "vision_encoder.backbone."),
    (r"^tracker_neck\.", "vision_encoder.neck."),
)
"""Of transformers' `Sam3VideoModel`, which holds the tracker, and of what it saves of a tracker alone."""
_SAM3_TRACKER = re.compile(r"tracker_(model|neck)\.|(detector_model\.)?vision_encoder\.backbone\.")
_SAM3_IMAGE = (
    "detector.backbone.vision_backbone.trunk.",
    "detector.backbone.vision_backbone.sam2_convs.",
    "sam_prompt_encoder.",
    "sam_mask_decoder.",
    "no_mem_embed",
)
IMAGE_PARTS = ("vision_encoder.", "prompt_encoder.", "mask_decoder.", "no_memory_embedding", SHARED_POSITIONS)
"""How the names of an image's part begin in transformers' models of videos."""


def find_part(name: str) -> int | None:
    """Return where in a tensor's name the segmenter's own name begins, after what wrappers put before it."""
    found = _PARTS.search(name)
    return None if found is None else found.start()


def name_in_sam_model(name: str) -> str:
    """Return the name in transformers' `SamModel` of a tensor of segment-anything's `Sam`."""
    return rename(name, (*_BOTH, *_SAM))


def to_sam2_model(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of SAM 2's own image predictor as transformers' `Sam2Model` names them.

    Args:
        weights: tensors by the names of https://github.com/facebookresearch/sam2, of EdgeTAM's and SAM 3's code too;
            those of the memory are left out.
    """
    import torch

    state: dict[str, Tensor] = {}
    points: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(VIDEO_PARTS):
            continue
        new = rename(name, (*_BOTH, *_SAM2))
        (points if ".point_embed." in new else state)[new] = tensor
    if points:
        state["prompt_encoder.point_embed.weight"] = torch.cat([points[name] for name in sorted(points)])
    return share_positions(state)


def to_sam3_tracker(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of SAM 3's own tracker as transformers' `Sam3TrackerModel` names them.

    Args:
        weights: tensors by the names of https://github.com/facebookresearch/sam3, whose detector and tracker share the
            encoder; those of words, the detector and the memory are left out.
    """
    state: dict[str, Tensor] = {}
    image = {name: tensor for name, tensor in weights.items() if name.startswith(_SAM3_IMAGE)}
    for name, tensor in to_sam2_model(image).items():
        new = rename(name, _SAM3)
        if ".qkv." in new:
            state |= {
                new.replace("qkv", f"{part}_proj"): each for part, each in zip("qkv", tensor.chunk(3), strict=True)
            }
        elif new.endswith(".position_embeddings"):
            state[new] = tensor[:, 1:]  # without the class token's, which the pretraining used
        elif ".freqs_cis" not in new:  # angles, which the model computes
            state[new] = tensor
    return state


def name_sam3_tracker(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of transformers' `Sam3TrackerModel` among those of one of its classes for SAM 3.

    Args:
        weights: tensors of the complete `Sam3VideoModel`, of `Sam3TrackerVideoModel` or of `Sam3TrackerModel`.
    """
    if any(name.startswith("tracker_model.") for name in weights):  # other decoders and necks are the detector's
        weights = {name: tensor for name, tensor in weights.items() if _SAM3_TRACKER.match(name)}
    named = {rename(name, _SAM3_MODEL): tensor for name, tensor in weights.items()}
    return share_positions({name: tensor for name, tensor in named.items() if name.startswith(IMAGE_PARTS)})


def share_positions(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with transformers' names and both copies of the positions, of which its files hold only one."""
    found = next((weights[name] for name in (_POSITIONS, SHARED_POSITIONS) if name in weights), None)
    return {**weights, **({} if found is None else dict.fromkeys((_POSITIONS, SHARED_POSITIONS), found))}


def rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Return a name after all rules, patterns and replacements, in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
