"""The layers of Qwen3.5 that keep a state instead of keys and values (gated delta-net), as llama.cpp computes them.

llama.cpp takes the rate of decay and not its logarithm, what a norm multiplies by and not its distance from 1, and the
value heads in another order. A checkpoint lists them by the key head that they share; llama.cpp repeats the key heads
one after another, so it lists the first value head of each key head, then the second of each
(https://github.com/ggml-org/llama.cpp/pull/19468, `src/models/qwen35.cpp`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, cat

from wise_edge.export.to_gguf.file import Change

FAMILY = "qwen3_5"
_LAYER = ".linear_attn."
_OWN_NORM = f"{_LAYER}norm.weight"
"""The only norm of the language model that is stored as what it multiplies by."""
_ROWS = ("in_proj_z.weight", "in_proj_a.weight", "in_proj_b.weight", "dt_bias")
_ROWS_AFTER_KEYS = ("in_proj_qkv.weight", "conv1d.weight")
_COLUMNS = ("out_proj.weight",)


def rename(source: str) -> str:
    """Return the name under which `gguf` maps a tensor of the checkpoint."""
    return source.replace(".dt_bias", ".dt_proj.bias")


def change_of(source: str, text: Mapping[str, Any]) -> Change | None:
    """Return what becomes of a tensor of the language model; None if nothing does.

    Args:
        source: its name in the checkpoint.
        text: the language model's entries of the config.
    """
    if source.endswith("norm.weight"):
        return None if source.endswith(_OWN_NORM) else _add_one
    if _LAYER not in source:
        return None
    heads = (text["linear_num_key_heads"], text["linear_num_value_heads"])
    keys = 2 * text["linear_key_head_dim"] * text["linear_num_key_heads"]  # rows of queries and keys
    changes: dict[str, Change] = {
        "A_log": partial(_decay, heads),
        **dict.fromkeys(_ROWS, partial(_regroup, heads, 0, 0)),
        **dict.fromkeys(_ROWS_AFTER_KEYS, partial(_regroup_rows, heads, keys)),
        **dict.fromkeys(_COLUMNS, partial(_regroup, heads, 1, 0)),
    }
    return changes.get(source.rpartition(_LAYER)[2])


def change_of_inputs(source: str, text: Mapping[str, Any]) -> Change | None:
    """Return what becomes of values [columns] that belong to the columns of a matrix; None if nothing does."""
    if not source.endswith(tuple(_LAYER + part for part in _COLUMNS)):
        return None
    return partial(_regroup, (text["linear_num_key_heads"], text["linear_num_value_heads"]), 0, 0)


def checks(text: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what llama.cpp assumes about these layers; see `wise_edge.export.to_gguf.limits`."""
    keys, values = text["linear_num_key_heads"], text["linear_num_value_heads"]
    yield "linear_value_head_dim", text["linear_value_head_dim"], text["linear_key_head_dim"]
    yield "linear_num_value_heads", values, max(1, values // keys) * keys
    yield "a full_attention among layer_types", "full_attention" in text["layer_types"], True


def describe_delta_net(writer: Any, text: Mapping[str, Any]) -> None:
    """Add the metadata of these layers to a `gguf.GGUFWriter`."""
    kinds = text["layer_types"]
    writer.add_ssm_conv_kernel(text["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(text["linear_key_head_dim"])
    writer.add_ssm_group_count(text["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(text["linear_num_value_heads"])
    writer.add_ssm_inner_size(text["linear_value_head_dim"] * text["linear_num_value_heads"])
    # gguf 0.19 has no method for the first; the second is for readers that know it alone.
    writer.add_array(f"{writer.arch}.attention.recurrent_layers", [kind == "linear_attention" for kind in kinds])
    writer.add_full_attention_interval(kinds.index("full_attention") + 1)
    writer.add_rope_dimension_count(int(text["head_dim"] * text["rope_parameters"]["partial_rotary_factor"]))


def _add_one(values: Tensor) -> Tensor:
    return values.float() + 1


def _decay(heads: tuple[int, int], logarithm: Tensor) -> Tensor:
    return _regroup(heads, 0, 0, -logarithm.float().exp())


def _regroup_rows(heads: tuple[int, int], keys: int, values: Tensor) -> Tensor:
    return _regroup(heads, 0, keys, values.squeeze(1) if values.ndim == 3 else values)


def _regroup(heads: tuple[int, int], axis: int, keys: int, values: Tensor) -> Tensor:
    """Move value heads from the checkpoint's order to llama.cpp's, behind the first `keys` entries of an axis."""
    key_heads, value_heads = heads
    before, moved = values.split([keys, values.shape[axis] - keys], axis)
    grouped = moved.unflatten(axis, (key_heads, value_heads // key_heads, -1))
    return cat([before, grouped.transpose(axis, axis + 1).flatten(axis, axis + 2)], axis)
