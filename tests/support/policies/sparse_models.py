"""Checkpoints of published size whose files are holes: real configs, names, types and shapes, and no numbers."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from segment_anything import sam_model_registry

from wise_edge.bundle.store import EMBEDDED, resolve_checkpoint
from wise_edge.policy.prompts import DEFAULT

_COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_TEXT = {
    "3b": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2,
    },
    "7b": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
}  # fmt: skip
"""Of the published configs of Qwen2.5-VL-3B-Instruct and 7B-Instruct."""
_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip


def write_sparse(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> Path:
    """Write a safetensors file whose numbers are a hole; it takes no room on the disk."""
    width, place, header = {"BF16": 2, "F32": 4}[dtype], 0, {}
    for name, shape in shapes.items():
        end = place + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    content = json.dumps(header).encode()
    with file.open("wb") as written:
        written.write(struct.pack("<Q", len(content)) + content)
        written.truncate(written.tell() + place)
    return file


def save_sparse_qwen(folder: Path, size: str, side: int = 840) -> Path:
    """Write a folder like Qwen2.5-VL's of "3b" or "7b", with the embedded tokenizer and images of a square."""
    embedded = resolve_checkpoint(EMBEDDED, "policy")
    text, tied = _TEXT[size], size == "3b"
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, "max_position_embeddings": 128000, "tie_word_embeddings": tied},
        vision_config={**_VISION, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=tied,
    )
    ids: dict[str, Any] = json.loads((embedded / "config.json").read_text())
    for name in _TOKENS:
        setattr(config, name, ids[name])
    with torch.device("meta"):
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tied_names = set(model.all_tied_weights_keys)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied_names}
    write_sparse(folder / "model.safetensors", shapes)
    for name in _COPIED:
        shutil.copyfile(embedded / name, folder / name)
    (folder / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    processor = json.loads((embedded / "preprocessor_config.json").read_text())
    processor["size"] = {"shortest_edge": side**2, "longest_edge": side**2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def save_sparse_sam(file: Path, kind: str = "vit_b") -> Path:
    """Write a file of the size of a published Segment Anything."""
    with torch.device("meta"):
        model = sam_model_registry[kind]()
    return write_sparse(file, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, "F32")
