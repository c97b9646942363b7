"""The policy with fresh weights: transformers' own Qwen2.5-VL of small widths."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from wise_edge.training.sft.config import PolicyModelConfig

PATCH = 14
MERGE = 2
TEMPORAL = 2
VISION_WINDOW = 112


def image_tokens(config: PolicyModelConfig) -> int:
    """Return the number of image tokens of one image."""
    return (config.image_size // (PATCH * MERGE)) ** 2


def build_policy(config: PolicyModelConfig, vocab_size: int, token_ids: dict[str, int], seed: int) -> Any:
    """Build a policy with fresh weights.

    Args:
        config: widths and initial scales.
        vocab_size: size of the tokenizer.
        token_ids: id of each of Qwen2.5-VL's special tokens.
        seed: seed of the weights.

    Returns:
        A float32 `Qwen2_5_VLForConditionalGeneration` on the CPU, in training mode.
    """
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_hf_config(config, vocab_size, token_ids)).float()
    _init_weights(model.model.visual, config.vision_init_std)
    _init_weights(model.model.language_model, config.init_std)
    return model.train()


def _hf_config(config: PolicyModelConfig, vocab_size: int, token_ids: dict[str, int]) -> Any:
    text = {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.init_std,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "bos_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": token_ids["<|im_end|>"],
        "pad_token_id": token_ids["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "mrope_section": list(config.mrope_section),
        },
    }
    vision = {
        "depth": config.vision_depth,
        "hidden_size": config.vision_hidden_size,
        "intermediate_size": config.vision_intermediate_size,
        "num_heads": config.vision_heads,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "window_size": VISION_WINDOW,
        "fullatt_block_indexes": list(config.vision_fullatt),
        "out_hidden_size": config.hidden_size,
        "initializer_range": config.vision_init_std,
        "hidden_act": "silu",
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
    )


def _init_weights(module: torch.nn.Module, std: float) -> None:
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=std)
