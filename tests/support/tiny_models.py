"""Checkpoints of the real architectures, small and with random weights that a wrong export cannot pass.

Queries and keys are scaled up: with plain random weights attention is nearly uniform, and a mistaken rotary embedding
or mask would hardly move the logits. All weights are half-precision numbers, as in a checkpoint on disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from wise_edge.policy.image import IMAGE_MEAN, IMAGE_STD
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.sam.mobile_sam import MobileSamArchitecture, build_mobile_sam
from wise_edge.sam.segment_anything import SamArchitecture, build_sam, save_sam

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SAM = SamArchitecture(
    relative_positions=True,
    input_size=64, patch_size=8, encoder_dim=32, encoder_depth=2, encoder_heads=2, window_size=3, global_attention=(1,),
    prompt_dim=32, decoder_heads=2, decoder_mlp_dim=32,
)  # fmt: skip
MOBILE_SAM = MobileSamArchitecture(
    input_size=128, encoder_dims=(8, 16, 24, 32), encoder_depths=(1, 1, 2, 1), encoder_heads=(1, 1, 2, 4),
    window_sizes=(1, 7, 4, 8), mlp_ratio=2.0, prompt_dim=64, decoder_mlp_dim=32,
)  # fmt: skip
"""Windows that are padded, that fit the grid, and one that is the entire grid; the published decoder's eight heads."""


def make_tokenizer() -> Tokenizer:
    """One token a byte, and Qwen's special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def make_policy(tokenizer: Tokenizer, *, window: int = 112) -> Any:
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "max_position_embeddings": 320,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 30.0, "mrope_section": [1, 2, 5]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": window,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
            "hidden_act": "silu",
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _randomize(name, parameter)
    return model


def _randomize(name: str, parameter: torch.Tensor) -> None:
    if parameter.ndim >= 2 or name.endswith("bias"):
        torch.nn.init.normal_(parameter, std=0.1)
    if any(part in name for part in ("q_proj.weight", "k_proj.weight", "qkv.weight")):
        parameter.mul_(4.0)
    parameter.copy_(parameter.half().float())


def save_policy(folder: Path) -> None:
    """Write what a training writes: a Hugging Face folder with `prompts.json`."""
    tokenizer = make_tokenizer()
    model = make_policy(tokenizer)
    model.half().save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=model.config.text_config.eos_token_id).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_inputs(folder, side=112, patch_size=14)


def save_inputs(folder: Path, side: int, patch_size: int) -> None:
    """Write how a policy's images and prompts are prepared."""
    processor = {
        "size": {"shortest_edge": side * side, "longest_edge": side * side},
        "patch_size": patch_size,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "prompts.json").write_text(json.dumps(EMBEDDED.to_dict()))


def make_sam() -> Any:
    torch.manual_seed(0)
    sam = build_sam(SAM)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "pos_embed" in name or "q_proj.weight" in name or "k_proj.weight" in name or "qkv.weight" in name:
                torch.nn.init.normal_(parameter, std=0.3)
            parameter.copy_(parameter.half().float())
    return sam


def make_sam2(video: bool = False) -> Any:
    """SAM 2 of 64 px; `video` gives the model that the published checkpoints hold, with its memory."""
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(
            hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 2, 3, 1], embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 2, 6, 3], global_attention_blocks=[5],
        ),
        backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    parts = {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 64},
        "mask_decoder_config": {
            "hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
    }  # fmt: skip
    torch.manual_seed(0)
    if video:
        memory = {"image_size": 64, "memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 32}
        memory |= {
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 8,
            "mask_downsampler_embed_dim": 32,
        }
        memory |= {"memory_attention_rope_feat_sizes": [4, 4], "memory_fuser_embed_dim": 32}
        memory |= {"memory_fuser_intermediate_dim": 32, "memory_attention_num_layers": 1}
        model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**parts, **memory))
    else:
        model = transformers.Sam2Model(transformers.Sam2Config(**parts))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "mask_tokens" not in name:
                torch.nn.init.normal_(parameter, std=0.15)
            if any(part in name for part in ("q_proj.weight", "k_proj.weight", "qkv.weight")):
                parameter.mul_(2.0)
            parameter.copy_(parameter.half().float())
    return model.float().eval()


def save_checkpoints(folder: Path) -> tuple[Path, Path]:
    """Write a policy and a segmenter; return their folders."""
    policy, sam = folder / "policy", folder / "sam"
    save_policy(policy)
    save_sam(make_sam(), SAM, sam)
    return policy, sam


def make_mobile_sam(architecture: MobileSamArchitecture | None = None) -> Any:
    torch.manual_seed(0)
    return fill_norms(build_mobile_sam(architecture or MOBILE_SAM))


def fill_norms(model: Any) -> Any:
    """Give norms and biases numbers that a missing `.eval()`, or a norm that was folded wrongly, cannot pass."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("running_var", "norm.weight", "bn.weight")):
                torch.nn.init.uniform_(value, 0.5, 1.5)
            elif name.endswith(("running_mean", "bias", "attention_biases")):
                torch.nn.init.normal_(value, std=0.3)
            elif any(part in name for part in ("qkv.weight", "q_proj.weight", "k_proj.weight")):
                value.mul_(4.0)
    return model.eval()
