"""The names that transformers' video models give to the tensors of a memory.

Source: the classes of https://github.com/huggingface/transformers/tree/main/src/transformers/models, `sam2_video` and
`edgetam_video`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wise_edge.sam.names import VIDEO_PARTS, rename

if TYPE_CHECKING:
    from torch import Tensor

VIDEO_MODEL_PARTS = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "memory_temporal_positional_encoding",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "occlusion_spatial_embedding_parameter",
    "spatial_perceiver.",
    "temporal_positional_encoding_projection_layer.",
)
"""How the names begin that an image does not need."""

_MEMORY = (
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.layers\.0\.", "object_pointer_proj.proj_in."),
    (r"^obj_ptr_proj\.layers\.1\.", "object_pointer_proj.layers.0."),
    (r"^obj_ptr_proj\.layers\.2\.", "object_pointer_proj.proj_out."),
    *(
        rule
        for layer in range(4)
        for rule in (
            (rf"mask_downsampler\.encoder\.{3 * layer}\.", f"mask_downsampler.layers.{layer}.conv."),
            (rf"mask_downsampler\.encoder\.{3 * layer + 1}\.", f"mask_downsampler.layers.{layer}.layer_norm."),
        )
    ),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"\.pix_feat_proj\.", ".feature_projection."),
    (r"\.fuser\.", ".memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv", ".pointwise_conv"),
    (r"\.gamma$", ".scale"),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm", ".layer_norm"),
)
_PERCEIVER = (
    (r"^(memory_attention\..*)\.linear1\.", r"\1.mlp.up_proj."),
    (r"^(memory_attention\..*)\.linear2\.", r"\1.mlp.down_proj."),
    (r"\.latents$", ".latents_1d"),
    (r"\.attn\.layer_norm_x\.", ".layer_norm_input."),
    (r"\.attn\.layer_norm_latents\.", ".layer_norm_latents."),
    (r"^(spatial_perceiver\..*)\.self_attn\.layer_norm\.", r"\1.layer_norm_self."),
    (r"^(spatial_perceiver\..*)\.self_attn\.", r"\1.self_attention."),
    (r"\.attn\.", ".cross_attention."),
    (r"\.to_out\.", ".o_proj."),
    (r"\.to_q\.", ".q_proj."),
    (r"ff\.0\.", "mlp.layer_norm."),
    (r"ff\.1\.", "mlp.up_proj."),
    (r"ff\.3\.", "mlp.down_proj."),
)
"""What differs in EdgeTAM."""


def to_video_model(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a memory as transformers' `Sam2VideoModel` or `EdgeTamVideoModel` names them.

    Args:
        weights: tensors by the names of https://github.com/facebookresearch/sam2 or
            https://github.com/facebookresearch/EdgeTAM, or by transformers'; those that an image needs are left out.
    """
    rules = _MEMORY + (_PERCEIVER if any(name.startswith("spatial_perceiver.") for name in weights) else ())
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.startswith((*VIDEO_PARTS, *VIDEO_MODEL_PARTS)):
            continue
        new = rename(name, rules)
        if ".to_kv." in new:  # keys and values in one
            for part, half in zip(("k_proj", "v_proj"), tensor.chunk(2), strict=True):
                state[new.replace("to_kv", part)] = half
        else:
            state[new] = tensor
    return state
