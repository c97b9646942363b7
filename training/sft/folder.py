"""The policy's checkpoint as an ordinary Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GenerationConfig

from wise_edge.errors import UsageError, first_line
from wise_edge.files.documents import to_json
from wise_edge.files.writing import replacing_folder
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.native.weight_files import list_tensors
from wise_edge.policy.answers.conventions import Conventions, write_conventions
from wise_edge.policy.answers.frame import PIXELS_XY
from wise_edge.policy.image import IMAGE_MEAN, IMAGE_STD
from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.training.sft.config import SftConfig
from wise_edge.training.sft.model import MERGE, PATCH, TEMPORAL
from wise_edge.training.sft.tokenizer import SPECIAL_TOKENS

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
"""Qwen2.5-VL's markup for text and images, without its default system message, tools and videos."""


def save_policy(
    model: Any, tokenizer: Tokenizer, config: SftConfig, folder: Path, records: Sequence[Path] = ()
) -> None:
    """Write config, half-precision weights, tokenizer, processor and prompts to `folder`, replacing its content.

    Args:
        model: the policy, float32; not changed.
        tokenizer: its tokenizer.
        config: the training's config.
        folder: the folder to write; it appears completely or not at all.
        records: files of the run to copy into it; those that do not exist are left out.
    """
    with replacing_folder(folder) as fresh:
        _save_model(model, fresh)
        _save_tokenizer(tokenizer, config, fresh)
        _save_processor(config, fresh)
        _write_json(fresh / "prompts.json", EMBEDDED.to_dict())
        write_conventions(fresh, Conventions(PIXELS_XY, PictureGeometry.square(config.model.image_size)))
        for file in records:
            if file.exists():
                shutil.copy(file, fresh)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a policy's folder; raises UsageError if there is none, or it is damaged."""
    return open_tokenizer(folder / "tokenizer.json", "name a policy folder")


def load_weights(model: Any, folder: Path) -> None:
    """Load a policy folder's weights into a policy of the same widths.

    Raises:
        UsageError: the folder holds no weights, or weights of other widths.
    """
    try:
        weights = {tensor.name: tensor.read() for tensor in list_tensors(folder)}
        weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]  # tied
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"start: {folder} does not fit the recipe's model: {first_line(error)}") from error


def _save_model(model: Any, folder: Path) -> None:
    weights = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    hf_config = type(model.config).from_dict(model.config.to_dict())
    hf_config.architectures = [type(model).__name__]
    hf_config.dtype = "float16"
    hf_config.save_pretrained(folder)
    text = model.config.text_config
    GenerationConfig(do_sample=False, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id).save_pretrained(
        folder
    )


def _save_tokenizer(tokenizer: Tokenizer, config: SftConfig, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": config.model.max_positions,
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != "<|endoftext|>"],
    }
    _write_json(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _save_processor(config: SftConfig, folder: Path) -> None:
    pixels = config.model.image_size**2
    settings = {
        "processor_class": "Qwen2_5_VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
        "min_pixels": pixels,
        "max_pixels": pixels,
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
    }
    _write_json(folder / "preprocessor_config.json", settings)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(to_json(data, indent=2) + "\n", encoding="utf-8")
