"""The language model of a Qwen-VL policy as GGUF: its tensors, its sizes and its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf

from wise_edge.errors import UsageError
from wise_edge.export.source.tensors import CheckpointTensors, has_own_head
from wise_edge.export.to_gguf import delta_net
from wise_edge.export.to_gguf.file import Change, Entry
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.policy.architecture import HEAD

ARCHITECTURES = {"qwen2_vl": "qwen2vl", "qwen2_5_vl": "qwen2vl", "qwen3_vl": "qwen3vl", "qwen3_5": "qwen35"}
"""llama.cpp's names; Qwen2-VL and Qwen2.5-VL share their language model."""
_PRE_TOKENIZERS = {"qwen3_5": "qwen35"}  # of the others "qwen2"
_F32 = ("_norm.weight", ".ssm_conv1d.weight")
"""Ends of the names of matrices that llama.cpp reads in F32 alone; its quantizer leaves them too."""


def text_entries(config: Mapping[str, Any], tensors: CheckpointTensors, file_type: str) -> list[Entry]:
    """Return the language model's tensors; norms, biases and convolutions in F32.

    Args:
        config: transformers' config as a dictionary.
        tensors: the checkpoint.
        file_type: type of the matrices, one of `FILE_TYPES`.

    Raises:
        UsageError: a tensor does not belong to this architecture.
    """
    has_head = has_own_head(config, tensors)
    place = text_places(config)
    found = []
    for source in tensors:
        if source.startswith("visual.") or (source == HEAD and not has_head):
            continue
        if (found_place := place(source)) is None:
            raise UsageError(f"{tensors.folder}: {source} has no place in a {config['model_type']} model")
        name, change = found_place
        small = len(tensors.shape(source)) <= 1 or name.endswith(_F32)
        found.append(Entry(name, source, "F32" if small else file_type, change))
    return found


def text_places(config: Mapping[str, Any]) -> Callable[[str], tuple[str, Change | None] | None]:
    """Return a function from a tensor's name in the checkpoint to its name in the file, and to what becomes of it."""
    text, own = config["text_config"], config["model_type"] == delta_net.FAMILY
    architecture = gguf.MODEL_ARCH[ARCHITECTURES[config["model_type"]].upper()]
    names = gguf.get_tensor_name_map(architecture, text["num_hidden_layers"])

    def place(source: str) -> tuple[str, Change | None] | None:
        name = names.get_name(delta_net.rename(source), try_suffixes=(".weight", ".bias"))
        return None if name is None else (name, delta_net.change_of(source, text) if own else None)

    return place


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
    if config["model_type"] == delta_net.FAMILY:
        delta_net.describe_delta_net(writer, text)
    writer.add_file_type(file_type_number(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe_vocabulary(writer, folder, text["vocab_size"], _PRE_TOKENIZERS.get(config["model_type"], "qwen2"))


def file_type_number(name: str) -> int:
    """Return llama.cpp's number of a file type, `general.file_type`."""
    numbers = gguf.LlamaFileType
    return int(numbers.ALL_F32 if name == "F32" else numbers[f"MOSTLY_{name}"])


def _describe_vocabulary(writer: Any, folder: Path, size: int, pre_tokenizer: str) -> None:
    tokens, kinds = zip(*_vocabulary(folder / "tokenizer.json", size), strict=True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
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
