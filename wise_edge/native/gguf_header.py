"""The header of a GGUF file, checked before llama.cpp reads it.

llama.cpp reports most of what is wrong with a file, but ends the process where numbers of the header contradict the
tensors, so these are compared first. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.errors import BundleError
from wise_edge.native.loading import loading

_KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {kind: struct.Struct(f"<{code}") for kind, code in _KINDS.items()}
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_BLOCKS = 512
"""llama.cpp's LLAMA_MAX_LAYERS (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-hparams.h)."""

Header = tuple[dict[str, Any], dict[str, tuple[int, ...]]]
"""Entries by key, arrays as their length; and the dimensions of each tensor, the innermost first."""


def check_gguf(file: Path) -> None:
    """Check that the header of a language model or vision tower can be read and does not contradict its tensors.

    Raises:
        BundleError: it cannot be read, or contradicts them.
    """
    with loading(file, "a GGUF file", "export the bundle again", error=BundleError):
        entries, tensors = read_header(file)
        if entries.get("general.architecture") == "clip":
            _check_vision(entries, tensors)
        else:
            _check_text(entries, tensors)


def read_header(file: Path) -> Header:
    """Return a file's entries and tensors; raises what Python raises for a file that is none, or is cut short."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(data).read()


class _Reader:
    """Reads one value after another; a length beyond the file ends in an error at the next."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._place = len(_MAGIC)

    def read(self) -> Header:
        if self._data[: len(_MAGIC)] != _MAGIC or self._scalar(_UINT32) not in _VERSIONS:
            raise ValueError("another format or version")
        tensor_count, entry_count = self._scalar(_UINT64), self._scalar(_UINT64)
        entries = {}
        for _ in range(entry_count):
            key = self._string()
            entries[key] = self._value(self._scalar(_UINT32))
        tensors = {}
        for _ in range(tensor_count):
            name = self._string()
            tensors[name] = tuple(self._scalar(_UINT64) for _ in range(min(self._scalar(_UINT32), len(self._data))))
            self._scalar(_UINT32), self._scalar(_UINT64)  # type and offset, which llama.cpp compares with the file
        return entries, tensors

    def _scalar(self, kind: int) -> Any:
        layout = _SCALARS[kind]
        (value,) = layout.unpack_from(self._data, self._place)
        self._place += layout.size
        return value

    def _string(self) -> str:
        size = self._scalar(_UINT64)
        text = self._data[self._place : self._place + size]
        self._place += size
        return text.decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(kind)
        inner, length = self._scalar(_UINT32), self._scalar(_UINT64)
        if inner != _STRING:
            self._place += length * _SCALARS[inner].size
            return length
        unpack, data, place = _SCALARS[_UINT64].unpack_from, self._data, self._place
        for _ in range(length):
            place += 8 + unpack(data, place)[0]
        self._place = place
        return length


def _check_text(entries: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    prefix = f"{entries.get('general.architecture')}."
    width, blocks, heads = (
        _count(entries, prefix + key) for key in ("embedding_length", "block_count", "attention.head_count")
    )
    kv_heads = _count(entries, f"{prefix}attention.head_count_kv")
    head = entries.get(f"{prefix}attention.key_length", width // heads)
    embedding = tensors["token_embd.weight"]
    _compare("block_count", blocks, _count_blocks("blk.", tensors))
    _compare("embedding_length", width, embedding[0])
    _compare("tokens", entries.get("tokenizer.ggml.tokens", embedding[1]), embedding[1])
    has_state = f"{prefix}ssm.state_size" in entries  # some blocks keep a state, and the others gate their heads
    block = min(int(name.split(".")[1]) for name in tensors if name.endswith(".attn_q.weight"))
    query, key = (tensors[f"blk.{block}.attn_{part}.weight"][1] for part in "qk")
    _compare("attention.head_count", heads * head * (1 + has_state), query)
    _compare("attention.head_count_kv", kv_heads * head, key)
    _compare("feed_forward_length", _count(entries, f"{prefix}feed_forward_length"), tensors["blk.0.ffn_up.weight"][1])
    if blocks > _MOST_BLOCKS or heads % kv_heads:
        raise ValueError(f"{blocks} blocks with {heads} heads and {kv_heads} of keys and values")
    _count(entries, f"{prefix}context_length")
    _check_epsilon(entries, f"{prefix}attention.layer_norm_rms_epsilon")
    if has_state:
        _check_state(entries, tensors, prefix)


def _check_state(entries: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], prefix: str) -> None:
    """Check the sizes of Qwen3.5's blocks that keep a state."""
    names = ("conv_kernel", "state_size", "group_count", "time_step_rank", "inner_size")
    kernel, size, key_heads, value_heads, inner = (_count(entries, f"{prefix}ssm.{name}") for name in names)
    block = min(int(name.split(".")[1]) for name in tensors if name.endswith(".ssm_a"))
    found = {name: tensors[f"blk.{block}.{name}"] for name in ("ssm_a", "ssm_conv1d.weight", "ssm_norm.weight")}
    _compare("ssm.conv_kernel", kernel, found["ssm_conv1d.weight"][0])
    _compare("ssm.state_size", size, found["ssm_norm.weight"][0])
    _compare("ssm.time_step_rank", value_heads, found["ssm_a"][0])
    _compare("ssm.inner_size", inner, size * value_heads)
    _compare("ssm.group_count", 2 * size * key_heads + inner, found["ssm_conv1d.weight"][1])
    if value_heads % key_heads:
        raise ValueError(f"{value_heads} heads of values and {key_heads} of keys")


def _check_vision(entries: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    prefix, patch = "clip.vision.", tensors["v.patch_embd.weight"]
    width, heads = _count(entries, f"{prefix}embedding_length"), _count(entries, f"{prefix}attention.head_count")
    blocks = _count(entries, f"{prefix}block_count")
    _compare("patch_size", _count(entries, f"{prefix}patch_size"), patch[0])
    _compare("embedding_length", width, patch[3])
    _compare("block_count", blocks, _count_blocks("v.blk.", tensors))
    _compare("projection_dim", _count(entries, f"{prefix}projection_dim"), tensors["mm.2.weight"][1])
    if width % heads:
        raise ValueError(f"{heads} heads in a width of {width}")
    if entries.get(f"{prefix}n_wa_pattern") == 1:
        raise ValueError("n_wa_pattern is 1")
    _check_epsilon(entries, f"{prefix}attention.layer_norm_epsilon")


def _count(entries: Mapping[str, Any], key: str) -> int:
    value = entries.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r:.40}")
    return value


def _count_blocks(start: str, tensors: Mapping[str, tuple[int, ...]]) -> int:
    return len({name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)})


def _compare(what: str, stated: Any, found: int) -> None:
    if stated != found:
        raise ValueError(f"{what} is {stated!r:.40} and its tensors have {found}")


def _check_epsilon(entries: Mapping[str, Any], key: str) -> None:
    value = entries.get(key, 0.0)
    if not isinstance(value, float) or not 0 <= value < math.inf:
        raise ValueError(f"{key} is {value!r:.40}")
