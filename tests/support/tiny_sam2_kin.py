"""EdgeTAM and SAM 3, small, with random weights that depend on every layer; see `tiny_models`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers

PARTS: dict[str, Any] = {
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
}
_TRUNK = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
_VIDEO = {
    "memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 32,
    "memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 32,
    "memory_attention_rope_feat_sizes": [4, 4], "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32,
    "memory_attention_num_layers": 1,
}  # fmt: skip
_WORDS = {
    "text_config": {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64,
        "projection_dim": 32, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2,
    },
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2, "num_upsampling_stages": 2},
} | {
    f"{part}_config": {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for part in ("geometry_encoder", "detr_encoder", "detr_decoder")
}  # fmt: skip


def make_edgetam(video: bool = False) -> Any:
    """EdgeTAM of 128 px with a narrow RepViT; `video` gives the model that is published, with its memory."""
    trunk = transformers.TimmWrapperConfig(
        architecture="repvit_m1", model_args={**_TRUNK, "embed_dim": [8, 16, 24, 32], "depth": [1, 1, 3, 1]}
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=trunk, backbone_channel_list=[32, 24, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    parts = {"vision_config": vision, "prompt_encoder_config": {"hidden_size": 32, "image_size": 128}, **PARTS}
    torch.manual_seed(0)
    if video:
        return randomize(transformers.EdgeTamVideoModel(transformers.EdgeTamVideoConfig(**parts)))
    return randomize(transformers.EdgeTamModel(transformers.EdgeTamConfig(**parts)))


def make_sam3(form: str = "tracker") -> Any:
    """SAM 3 of 56 px: its "tracker", the "tracker video" with its memory, or "complete", as it is published."""
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "window_size": 2,
            "global_attn_indexes": [1, 3], "pretrain_image_size": 28,
        },
        "fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    parts = {"vision_config": vision, "prompt_encoder_config": prompt, **PARTS}
    torch.manual_seed(0)
    if form == "tracker":
        return randomize(transformers.Sam3TrackerModel(transformers.Sam3TrackerConfig(**parts)))
    tracker = transformers.Sam3TrackerVideoConfig(**parts, **_VIDEO, image_size=56)
    if form == "tracker video":
        return randomize(transformers.Sam3TrackerVideoModel(tracker))
    detector = {"vision_config": vision, **_WORDS}
    config = transformers.Sam3VideoConfig(detector_config=detector, tracker_config=tracker.to_dict())
    return randomize(transformers.Sam3VideoModel(config))


def randomize(model: Any) -> Any:
    """Give a model weights in half precision that a wrong export cannot pass, statistics of batch norms included."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim >= 2 and "mask_tokens" not in name and "timm_model" not in name:
                torch.nn.init.normal_(values, std=0.15)
            elif (values.ndim == 1 and "norm" in name) or ".bn." in name:
                values.add_(0.2 * torch.randn_like(values))
            if any(part in name for part in ("q_proj.weight", "k_proj.weight")):
                values.mul_(2.0)
        for name, values in model.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(std=0.3)
            if name.endswith("running_var"):
                values.uniform_(0.5, 2.0)
        for values in (*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())):
            values.copy_(values.half().float())
    return model.eval()


def numbered(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return tensors that depend on their names alone, so that other code can be given the same."""

    def draw(name: str, shape: Sequence[int]) -> torch.Tensor:
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
        if name.endswith("num_batches_tracked"):
            return torch.tensor(0)
        if name.endswith("running_var"):
            return torch.from_numpy(1 + 0.1 * np.abs(values))
        if len(shape) == 1:
            is_scale = name.endswith("weight") and ("norm" in name or ".bn." in name)
            return torch.from_numpy(1 + 0.1 * values if is_scale else 0.1 * values)
        return torch.from_numpy(values / np.float32(np.sqrt(np.prod(shape[1:]))))

    return {name: draw(name, shape) for name, shape in shapes.items()}
