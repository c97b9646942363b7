"""The vision tower of a Qwen-VL policy as GGUF, the file that llama.cpp calls mmproj."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import gguf
from torch import Tensor

from wise_edge.errors import UsageError
from wise_edge.export.source.tensors import CheckpointTensors
from wise_edge.export.to_gguf.file import Change, Entry
from wise_edge.export.to_gguf.text import file_type_number
from wise_edge.policy.processor import ImageSettings

ARCHITECTURE = "clip"
_QWEN3 = "qwen3vl_merger"
_PROJECTORS = {"qwen2_vl": "qwen2vl_merger", "qwen2_5_vl": "qwen2.5vl_merger", "qwen3_vl": _QWEN3, "qwen3_5": _QWEN3}
"""llama.cpp's name of each tower; Qwen3-VL's and Qwen3.5's differ only in the layers that feed the language model."""
_NORM_EPS = 1e-6  # every norm of the three towers, in the code and not in the config
_PATCH = "visual.patch_embed.proj.weight"
_MERGER = {"norm": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2"}  # Qwen3's; the others gguf maps
_DEEPSTACK = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def vision_entries(config: Mapping[str, Any], tensors: CheckpointTensors, file_type: str) -> list[Entry]:
    """Return the vision tower's tensors: norms, biases and learned positions in F32.

    Raises:
        UsageError: a tensor has no place in this architecture.
    """
    return [
        Entry(name, source, _type(name, len(tensors.shape(source)), file_type), change)
        for source in tensors
        if source.startswith("visual.")
        for name, change in _names(config, tensors, source)
    ]


def _type(name: str, dimensions: int, file_type: str) -> str:
    if dimensions <= 1 or ".position_embd." in name or name.endswith("_norm.weight"):
        return "F32"
    if ".patch_embd." in name and file_type == "BF16":
        return "F32"  # llama.cpp has no convolution of BF16
    return file_type


def _names(config: Mapping[str, Any], tensors: CheckpointTensors, source: str) -> Iterator[tuple[str, Change | None]]:
    """Yield the name of what a tensor of the checkpoint becomes, and which part of it."""
    stem, suffix = source.rsplit(".", 1)
    is_qwen3 = _PROJECTORS[config["model_type"]] == _QWEN3
    parts = stem.split(".")
    if source == _PATCH:
        for frame in range(2):
            yield "v.patch_embd.weight" + ".1" * frame, partial(_frame, frame)
    elif ".attn.qkv" in source and not is_qwen3:
        for index, part in enumerate("qkv"):
            yield _mapped(config, tensors, source.replace("qkv", part)), partial(_third, index)
    elif parts[1] == "deepstack_merger_list":
        layer = config["vision_config"]["deepstack_visual_indexes"][int(parts[2])]
        yield f"v.deepstack.{layer}.{_DEEPSTACK[parts[3]]}.{suffix}", None
    elif parts[1] == "merger" and is_qwen3:
        yield f"{_MERGER[parts[2]]}.{suffix}", None
    else:
        yield _mapped(config, tensors, source), None


def _mapped(config: Mapping[str, Any], tensors: CheckpointTensors, source: str) -> str:
    name = _name_map(config["vision_config"]["depth"]).get_name(source, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise UsageError(
            f"{tensors.folder}: {source} has no place in the vision tower of a {config['model_type']} model"
        )
    return str(name)


@cache
def _name_map(depth: int) -> Any:
    """Return gguf's map of names; making it takes 50 ms."""
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, max(3, depth))  # the merger's parts are counted like blocks


def _frame(index: int, kernel: Tensor) -> Tensor:
    return kernel[:, :, index]


def _third(index: int, joined: Tensor) -> Tensor:
    return joined.chunk(3)[index]


def describe_vision(writer: Any, config: Mapping[str, Any], images: ImageSettings, file_type: str) -> None:
    """Add the vision tower's metadata to a `gguf.GGUFWriter`.

    Args:
        writer: the writer.
        config: transformers' config as a dictionary.
        images: settings of the folder's image processor.
        file_type: type of the matrices.
    """
    family, vision = config["model_type"], config["vision_config"]
    width = vision["embed_dim"] if family == "qwen2_vl" else vision["hidden_size"]
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(file_type_number(file_type))
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(_PROJECTORS[family])
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(_image_size(family, vision))
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(width)
    writer.add_vision_feed_forward_length(
        vision["hidden_size"] if family == "qwen2_vl" else vision["intermediate_size"]
    )
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_image_mean(images.mean)
    writer.add_vision_image_std(images.std)
    writer.add_vision_attention_layernorm_eps(_NORM_EPS)
    if family == "qwen2_5_vl":
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(vision["fullatt_block_indexes"][0] + 1)
    if _PROJECTORS[family] == _QWEN3:
        writer.add_vision_use_gelu(True)
        writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
        indexes = vision.get("deepstack_visual_indexes", ())
        writer.add_vision_is_deepstack_layers([layer in indexes for layer in range(vision["depth"])])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _image_size(family: str, vision: Mapping[str, Any]) -> int:
    """Return the size that llama.cpp warms up with, px; Qwen3's learned positions are a square of it."""
    if _PROJECTORS[family] == _QWEN3:
        return int(vision["num_position_embeddings"] ** 0.5 * vision["patch_size"])
    return int(vision.get("image_size", 560))
