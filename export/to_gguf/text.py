"""The language model of a Qwen-VL policy as GGUF: its tensors, its sizes and its vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf

from wise_edge.errors import UsageError
from wise_edge.export.source.tensors import CheckpointTensors, has_own_head
from wise_edge.export.to_gguf.file import Entry
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.policy.architecture import HEAD

ARCHITECTURES = {"qwen2_vl": "qwen2vl", "qwen2_5_vl": "qwen2vl", "qwen3_vl": "qwen3vl"}
"""llama.cpp's names; Qwen2-VL and Qwen2.5-VL share their language model."""


def text_entries(config: Mapping[str, Any], tensors: CheckpointTensors, file_type: str) -> list[Entry]:
    """Return the language model's tensors, norms and biases in F32.

    Args:
        config: transformers' config as a dictionary.
        tensors: the checkpoint.
        file_type: type of the matrices, one of `FILE_TYPES`.

    Raises:
        UsageError: a tensor does not belong to this architecture.
    """
    names = text_names(config)
    has_head = has_own_head(config, tensors)
    found = []
    for source in tensors:
        if source.startswith("visual.") or (source == HEAD and not has_head):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UsageError(f"{tensors.folder}: {source} has no place in a {config['model_type']} model")
        small = len(tensors.shape(source)) <= 1 or name.endswith("_norm.weight")
        found.append(Entry(name, source, "F32" if small else file_type))
    return found


def text_names(config: Mapping[str, Any]) -> Any:
    """Return gguf's map from the checkpoint's tensor names to those of the file."""
    architecture = gguf.MODEL_ARCH[ARCHITECTURES[config["model_type"]].upper()]
    return gguf.get_tensor_name_map(architecture, config["text_config"]["num_hidden_layers"])


def describe_text(writer: Any, config: Mapping[str, Any], folder: Path, file_type: str) -> None:
    """Add the language model's metadata and vocabulary to a `gguf.GGUFWriter`."""
    text = config["text_config"]
    rope = text["rope_parameters"]
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    if head_dim := text.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config["model_type"] == "qwen3_vl":
        writer.add_num_deepstack_layers(len(config["vision_config"]["deepstack_visual_indexes"]))
    writer.add_file_type(file_type_number(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe_vocabulary(writer, folder, text["vocab_size"])


def file_type_number(name: str) -> int:
    """Return llama.cpp's number of a file type, `general.file_type`."""
    numbers = gguf.LlamaFileType
    return int(numbers.ALL_F32 if name == "F32" else numbers[f"MOSTLY_{name}"])


def _describe_vocabulary(writer: Any, folder: Path, size: int) -> None:
    tokens, kinds = zip(*_vocabulary(folder / "tokenizer.json", size), strict=True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True)
    if not special.merges:
        raise UsageError(
            f"{folder / 'tokenizer.json'} is not a byte-pair encoding with merges, which llama.cpp needs here"
        )
    special.add_to_gguf(writer)


def _vocabulary(file: Path, size: int) -> Iterator[tuple[str, int]]:
    """Yield every token and its type; numbers that no token has are padding."""
    kinds, tokenizer = gguf.TokenType, open_tokenizer(file)
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    if (largest := max(tokens)) >= size:
        raise UsageError(f"{file} has the token {largest}, the model ends at {size - 1}; they do not belong together")
    added = tokenizer.get_added_tokens_decoder()
    for number in range(size):
        if number not in tokens:
            yield f"[PAD{number}]", kinds.UNUSED
        elif number not in added:
            yield tokens[number], kinds.NORMAL
        else:
            yield tokens[number], kinds.CONTROL if _is_control(added[number]) else kinds.USER_DEFINED


def _is_control(token: Any) -> bool:
    content = token.content
    return token.special or (content.startswith("<|") and content.endswith("|>"))
