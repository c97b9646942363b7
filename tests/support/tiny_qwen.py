"""Checkpoints of the Qwen-VL families: small, untied, weights from numpy so that every machine draws the same.

Queries and keys are scaled up, or attention would be nearly uniform and a mistaken rotary embedding pass unnoticed;
not as far as in `tiny_models`, since llama.cpp looks GELU up in a table of half precision and large queries multiply
that difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tiny_models import SPECIAL, save_inputs

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
GRID = 8
"""Patches along a side of an image."""

_CLASSES = {
    "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration),
    "qwen3_5": (transformers.Qwen3_5Config, transformers.Qwen3_5ForConditionalGeneration),
}
_PADDING = 9  # rows of the embedding that no token has
_PATCH = {"spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
_VISION = {
    "qwen2_vl": {"depth": 3, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "patch_size": 14},
    "qwen2_5_vl": {
        "depth": 4, "hidden_size": 32, "intermediate_size": 48, "patch_size": 14, "out_hidden_size": 64,
        "window_size": 112, "fullatt_block_indexes": [1, 3], "hidden_act": "silu",
    },
    "qwen3_vl": {
        "depth": 3, "hidden_size": 32, "intermediate_size": 48, "patch_size": 16, "out_hidden_size": 64,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2],
    },
    "qwen3_5": {
        "depth": 3, "hidden_size": 32, "intermediate_size": 48, "patch_size": 16, "out_hidden_size": 64,
        "num_position_embeddings": 64,
    },
}  # fmt: skip
_OUT = {"qwen2_vl": "hidden_size"}
"""Entry of the vision tower that is the language model's width, where it is not `out_hidden_size`."""
_ROPE = {
    "qwen2_vl": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 2, 5]},
    "qwen2_5_vl": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 2, 5]},
    "qwen3_vl": {
        "rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 4, 4], "mrope_interleaved": True
    },
    "qwen3_5": {
        "rope_type": "default", "rope_theta": 1000.0, "mrope_section": [3, 3, 2], "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    },
}  # fmt: skip
_TEXT = {
    "qwen2_vl": {"use_sliding_window": False},
    "qwen2_5_vl": {"use_sliding_window": False},
    "qwen3_vl": {"head_dim": 24},
    "qwen3_5": {
        "head_dim": 64, "num_hidden_layers": 4,  # three of them with a recurrent state, as everywhere in the family
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    },
}  # fmt: skip


def make_tokenizer() -> Tokenizer:
    """Bytes, a few merges, Qwen's special tokens and one ordinary added token."""
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("i", "n")]
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def make_qwen(family: str, *, tied: bool = False, width: int = 64, **text: Any) -> Any:
    """Build a model in float32 whose language model is `width` wide; `text` replaces entries of its text config."""
    tokenizer = make_tokenizer()
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    config_class, model_class = _CLASSES[family]
    config = config_class(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + _PADDING,
            "hidden_size": width,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": tied,
            "rope_parameters": _ROPE[family],
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **_TEXT[family],
            **text,
        },
        vision_config=_PATCH | _VISION[family] | {_OUT.get(family, "out_hidden_size"): width},
        tie_word_embeddings=tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        attn_implementation="eager",
    )
    model = model_class(config).float().eval()
    with torch.no_grad():
        for index, (name, parameter) in enumerate(model.named_parameters()):
            parameter.copy_(torch.from_numpy(_draw(index, name, tuple(parameter.shape))))
        for name, module in model.named_modules():
            if type(module).__name__ == "Qwen3_5RMSNorm":  # it multiplies by 1 + weight
                module.weight.mul_(2 if name.endswith(("q_norm", "k_norm")) else 1).sub_(1)
    return model


def _draw(index: int, name: str, shape: tuple[int, ...]) -> Any:
    """Return half-precision numbers, as in a checkpoint on disk; norms near 1."""
    values = np.random.default_rng(index).standard_normal(shape)
    if name.endswith("norm.weight") or "layernorm.weight" in name or "norm1.weight" in name or "norm2.weight" in name:
        values = 1 + 0.1 * values
    elif name.endswith("A_log"):
        values = -3 + 0.5 * values  # a state that lasts for about 30 tokens
    else:
        values = values * (0.5 if "embed_tokens" in name else 0.1)
    if any(part in name for part in ("q_proj.weight", "k_proj.weight", "qkv.weight", "conv1d.weight")):
        values = values * 1.5
    return values.astype(np.float16).astype(np.float32)


def save_qwen(model: Any, folder: Path, dtype: torch.dtype = torch.float32, shard_size: str = "5GB") -> Path:
    """Write what a training writes: a Hugging Face folder with `prompts.json`. The model becomes of that type."""
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    text, vision = model.config.text_config, model.config.vision_config
    transformers.GenerationConfig(eos_token_id=text.eos_token_id).save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    save_inputs(folder, GRID * vision.patch_size, vision.patch_size)
    return folder
