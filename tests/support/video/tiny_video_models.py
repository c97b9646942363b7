"""SAM 2.1 and EdgeTAM with their memory, small, of random weights, and a video to follow objects in.

Memory attention takes memories 64 wide whatever the config says, so the widths are larger than those of `tiny_models`.
The weights are scaled so that masks are neither empty nor full, depend on what is remembered, and objects are hidden on
some frames.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

SIDE, GRID, WIDTH = 64, 4, 128
VIDEOS = ("sam2", "edgetam")
"""Families with a video model."""


def make_video_model(family: str, **options: Any) -> Any:
    """Return `Sam2VideoModel` or `EdgeTamVideoModel` of 64 px; `options` are of its config."""
    torch.manual_seed(_SEEDS[family])
    parts = {
        "vision_config": _edgetam_vision() if family == "edgetam" else _sam2_vision(),
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SIDE},
        "mask_decoder_config": {
            "hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
        "image_size": SIDE, "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 2,
        "memory_attention_rope_feat_sizes": [GRID, GRID], "memory_encoder_hidden_size": WIDTH,
        "mask_downsampler_embed_dim": WIDTH, "memory_fuser_embed_dim": WIDTH, "memory_fuser_intermediate_dim": 64,
    }  # fmt: skip
    if family == "edgetam":
        parts |= {"memory_attention_mlp_hidden_size": 64, "memory_attention_rope_k_sizes": [2, 2]}
        parts |= {"perceiver_resampler_num_latents": 6, "perceiver_resampler_num_latents_2d": 4}
        model = transformers.EdgeTamVideoModel(transformers.EdgeTamVideoConfig(**parts | options))
    else:
        parts |= {"memory_attention_feed_forward_hidden_size": 64}
        model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**parts | options))
    _scale(model, *_SCALES[family])
    if family == "edgetam":
        _settle(model.vision_encoder.backbone)
    return model.float().eval()


def _sam2_vision() -> Any:
    return transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(
            hidden_size=8, image_size=[SIDE, SIDE], blocks_per_stage=[1, 2, 3, 1], embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 2, 6, 3], global_attention_blocks=[5],
        ),
        backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=WIDTH,
        backbone_feature_sizes=[[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
    )  # fmt: skip


def _edgetam_vision() -> Any:
    trunk = transformers.TimmWrapperConfig(
        architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    return transformers.EdgeTamVisionConfig(
        backbone_config=trunk, fpn_hidden_size=WIDTH,
        backbone_feature_sizes=[[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
    )  # fmt: skip


_SEEDS = {"sam2": 3, "edgetam": 11}
_SCALES = {"sam2": (-0.45, 0.7, 1.5), "edgetam": (0.0, 1.5, 2.5)}
"""By trial: what is added to object scores, and how much larger than neutral the weights are by which a memory and the
finest features act. With larger ones the differences of two runs grow from frame to frame."""


def _scale(model: Any, score_bias: float, memory: float, finest: float) -> None:
    gains = (
        (r"[qk]_proj|qkv|pred_obj_score_head", 1.5),
        (r"cross_attn_image\.(v|o)_proj|memory_encoder\.(mask_downsampler|projection)", memory),
        (r"mask_decoder\.(upscale_conv|conv_s)", finest),
        (r"", 1.0),
    )
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" in name or ".bn." in name:
                values.add_(0.2 * torch.randn_like(values))
            elif values.ndim < 2 or re.search("embedding|encoding|latents|token", name):
                values.normal_(std=0.3)
            else:
                gain = next(gain for pattern, gain in gains if re.search(pattern, name))
                values.normal_(std=gain / math.sqrt(values[0].numel()))
        for name, values in model.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(std=0.1)
            if name.endswith("running_var"):
                values.uniform_(0.5, 1.5)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score_bias)
        for values in model.parameters():
            values.copy_(values.half().float())


def _settle(trunk: Any) -> None:
    """Give batch norms the statistics of the video and of noise, as training would.

    With others each block of RepViT adds to the last one's sum: the coarsest features are 1e5, and a change of 1e-7 in
    the image is 1e-3 of them.
    """
    frames = torch.from_numpy(np.stack(make_frames(30)[::2])).permute(0, 3, 1, 2)
    pixels = (frames / 255 - 0.45) / 0.225  # about ImageNet's mean and deviation
    norms = [layer for layer in trunk.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        trunk.train()(torch.cat([pixels, torch.randn(pixels.shape)]))
    trunk.eval()
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.add_(0.01)


def make_frames(count: int) -> list[npt.NDArray[np.uint8]]:
    """Return frames as large as the models' input in which two squares move, one of them out and back in."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 90, (SIDE // 8, SIDE // 8, 3)).repeat(8, 0).repeat(8, 1)
    frames = []
    for time in range(count):
        frame = ground.astype(np.uint8)
        frame[20:42, 4 + time : 26 + time] = (230, 60, 40)
        top = int(30 + 34 * math.sin(time / 4))
        frame[max(0, top) : max(0, top + 12), 46:62] = (40, 120, 250)
        frames.append(frame)
    return frames
