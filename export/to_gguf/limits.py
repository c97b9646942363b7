"""What llama.cpp assumes about Qwen-VL models, checked before a file is written.

A GGUF file does not record these facts, so a different checkpoint would load, run and return wrong results. In
llama.cpp (https://github.com/ggml-org/llama.cpp) see `tools/mtmd/clip.cpp`, `tools/mtmd/models/qwen2vl.cpp` and
`qwen3vl.cpp`, `src/models/qwen2vl.cpp` and `qwen3vl.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.export.source.tensors import CheckpointTensors
from wise_edge.export.to_gguf import delta_net
from wise_edge.policy.architecture import EMBEDDING

_WINDOW_PX = 112
_ACTIVATIONS = {"qwen2_vl": "quick_gelu", "qwen2_5_vl": "silu"}
_QWEN3_ACTIVATION = "gelu_pytorch_tanh"
_QWEN3 = ("qwen3_vl", "qwen3_5")
"""Families with the newer norms, sections of positions and vision tower."""

_PUBLISHED_EPS = 1e-6
_LOGITS_MOVED = 3.0
"""llama.cpp does not read `rms_norm_eps` of Qwen2-VL and Qwen2.5-VL and computes with 0 (llama-cpp-python 0.3.36). Over
answers of 250 tokens that moved logits by 2.5 to 3.2 times the share of epsilon in the embeddings' mean square, as a
share of the largest logit (embeddings of 0.01 to 0.05; the same with 3 and 28 layers, since the residual stream grows
and later norms hardly count)."""
_LARGEST_SHARE = 0.003  # moves logits by 0.9 %, within the tolerance of F16
_LARGEST_PUBLISHED_SHARE = 0.05
"""Of `_PUBLISHED_EPS`, up to which the comparison with torch alone decides: llama.cpp runs the published models, and
their embeddings were not at hand to set this any closer."""
_SAMPLED_ROWS = 4096
_LARGEST_LOST_ANGLE = 0.02  # radians, see `_lost_angle`
_LONGEST_PROMPT = 4096  # positions


def check_limits(folder: Path, config: Mapping[str, Any]) -> None:
    """Reject a checkpoint that llama.cpp would run incorrectly.

    Args:
        folder: the checkpoint, for the message.
        config: transformers' config of it, as a dictionary with its defaults filled in.

    Raises:
        UsageError: names the entry of the config, its value and what llama.cpp assumes.
    """
    checks = (*_text_checks(config), *_vision_checks(config))
    for entry, found, assumed in checks:
        if found != assumed:
            raise UsageError(
                f"{folder}: {entry} is {found}; llama.cpp assumes {assumed} and would silently return wrong results"
            )


def check_norm_eps(tensors: CheckpointTensors, config: Mapping[str, Any]) -> None:
    """Reject a checkpoint whose norms depend on `rms_norm_eps` more than llama.cpp's, which leave it out.

    Args:
        tensors: the checkpoint.
        config: see `check_limits`.

    Raises:
        UsageError: names epsilon, the embeddings' size and about how far logits would move.
    """
    if config["model_type"] in _QWEN3:
        return
    eps, table = config["text_config"]["rms_norm_eps"], tensors.read(EMBEDDING)
    rows = table[:: max(1, len(table) // _SAMPLED_ROWS)].float()
    size = float(rows.square().mean(1).median())
    if eps <= max(_LARGEST_SHARE * size, min(_PUBLISHED_EPS, _LARGEST_PUBLISHED_SHARE * size)):
        return
    moved = _LOGITS_MOVED * eps / max(size, eps)
    raise UsageError(
        f"{tensors.folder}: rms_norm_eps is {eps:g}, which llama.cpp leaves out; with embeddings as small as these "
        f"(root mean square {size**0.5:.2g}) that would move logits by about {min(moved, 1):.0%} and silently return "
        "wrong results; export it with --target onnx"
    )


Check = tuple[str, Any, Any]
"""An entry of the config, its value, and the value that llama.cpp assumes."""


def _text_checks(config: Mapping[str, Any]) -> Iterator[Check]:
    text = config["text_config"]
    rope = text["rope_parameters"]
    sections = list(rope.get("mrope_section", ()))
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    yield "rope_type", "default" if rope["rope_type"] == "mrope" else rope["rope_type"], "default"
    yield "the length of mrope_section", len(sections), 3
    yield "the sum of mrope_section", sum(sections), int(head_dim * rope.get("partial_rotary_factor", 1.0)) // 2
    yield "hidden_act", text["hidden_act"], "silu"
    yield "use_sliding_window", bool(text.get("use_sliding_window")), False
    if config["model_type"] not in _QWEN3:
        return
    even = _lost_angle(sections, rope["rope_theta"]) <= _LARGEST_LOST_ANGLE
    yield "mrope_interleaved", bool(rope.get("mrope_interleaved", True)), True
    yield "mrope_section", sections, sections if even else f"even sections as {[head_dim // 6] * 3}"
    yield "attention_bias", bool(text.get("attention_bias")), False
    layers, deeper = text["num_hidden_layers"], len(config["vision_config"].get("deepstack_visual_indexes", ()))
    yield "the number of layers", layers, max(layers, deeper + 1)  # the last drops tokens: adding to it aborts
    if config["model_type"] == delta_net.FAMILY:
        yield from delta_net.checks(text)


def _lost_angle(sections: Sequence[int], theta: float) -> float:
    """Return the largest rotary angle that llama.cpp leaves at 0 where transformers rotates by time, in radians.

    Interleaved sections alternate channels: time, row, column. Once rows or columns have used up theirs,
    transformers continues with time, while llama.cpp does not rotate these channels (`ggml_mrope_cache_init` in
    `ggml/src/ggml-cpu/ops.cpp`). With the published [24, 20, 20], two channels are affected, which hardly rotate.
    """
    lost = [index for index in range(sum(sections)) if index >= 3 * sections[index % 3]]
    return max((_LONGEST_PROMPT * theta ** (-index / sum(sections)) for index in lost), default=0.0)


def _vision_checks(config: Mapping[str, Any]) -> Iterator[Check]:
    family, vision = config["model_type"], config["vision_config"]
    rope = vision.get("rope_parameters") or {}
    yield "vision_config.hidden_act", vision["hidden_act"], _ACTIVATIONS.get(family, _QWEN3_ACTIVATION)
    yield "vision_config.temporal_patch_size", vision["temporal_patch_size"], 2
    yield "vision_config.spatial_merge_size", vision["spatial_merge_size"], 2
    yield "vision_config.in_channels", vision["in_channels"], 3
    yield "vision_config.rope_theta", rope.get("rope_theta", 10000.0), 10000.0
    if family == "qwen2_5_vl":
        full = list(vision["fullatt_block_indexes"])
        period = full[0] + 1 if full else vision["depth"] + 1
        yield "vision_config.window_size", vision["window_size"], _WINDOW_PX
        yield "vision_config.fullatt_block_indexes", full, list(range(period - 1, vision["depth"], period))
    if family in _QWEN3:
        positions = vision["num_position_embeddings"]
        yield "vision_config.num_position_embeddings", positions, round(positions**0.5) ** 2
