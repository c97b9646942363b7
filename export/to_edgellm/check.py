"""Whether the graphs of TensorRT Edge-LLM compute what the checkpoint does, without a GPU.

Its graphs use operators from its plugins. `onnx.reference` runs the standard ones, and the two attention plugins are
implemented here in numpy: rotary angles in halves, causal for text, within windows for images. Reference: the plugins'
inputs as named in https://github.com/NVIDIA/TensorRT-Edge-LLM, version 0.11.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import transformers
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from wise_edge.bundle.manifest import Figure
from wise_edge.errors import VerificationError
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.to_onnx.edit import load_light
from wise_edge.export.to_onnx.language import rotary_axes
from wise_edge.export.to_onnx.vision import interpolation, rotary_angles, window_order
from wise_edge.policy.graph_io import DEEPSTACK, Batch, patch_grid

BOUND = 5e-3
"""Tolerance for half precision, relative to the largest value."""
_DOMAIN = "trt_edgellm"
_PAGE = 128  # positions in a page of keys and values
_PLUGIN_PRODUCTS = ("int4_awq", "nvfp4")  # onnx.reference cannot run their products; their operators are checked
_HEADS = 1  # products that stay float: the one that gives the logits

Array = npt.NDArray[Any]


def check_operators(graph: Path, method: str) -> None:
    """Reject a graph whose products are not quantized as requested; the exporter skips them silently.

    Args:
        graph: the language model.
        method: one of `precisions.EDGELLM_METHODS`.

    Raises:
        VerificationError: a product other than the head's is still float, or one is quantized unexpectedly.
    """
    model = load_light(graph)
    stored = Counter(tensor.data_type for tensor in model.graph.initializer)
    kinds = onnx.TensorProto
    four_bits = sum(node.op_type.startswith("Int4GroupwiseGemmPlugin") for node in model.graph.node)
    found = {
        "fp8": stored[kinds.FLOAT8E4M3FN] if not stored[kinds.FLOAT4E2M1] else 0,  # there they store scales
        "int8_sq": stored[kinds.INT8] if not four_bits else 0,  # there each stores two weights
        "nvfp4": stored[kinds.FLOAT4E2M1],
        "int4_awq": four_bits,
    }
    left = _float_products(model.graph)
    if method in found and (not found[method] or left > _HEADS):
        raise VerificationError(
            f"{graph} has {found[method]} products of {method} and {left} in float, of which only the head's was to "
            "stay; tensorrt-edgellm left them out"
        )
    if others := [name for name, count in found.items() if name != method and count]:
        raise VerificationError(f"{graph} has products of {others[0]}, {method} was asked for")


def _float_products(graph: Any) -> int:
    """Return how many products have float weights."""
    kinds = onnx.TensorProto
    floats = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16}
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type in floats}
    made_by = {name: node for node in graph.node for name in node.output}
    count = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            weight = node.input[1]
            while weight in made_by and made_by[weight].op_type in ("Cast", "Reshape", "Transpose"):
                weight = made_by[weight].input[0]
            count += weight in stored
    return count


def check_template(source: PolicyCheckpoint, folder: Path) -> None:
    """Reject a checkpoint whose chat template does not write the prompt that the policy was trained with.

    Args:
        source: the policy.
        folder: the checkpoint that Edge-LLM reads the template from.

    Raises:
        VerificationError: the prompts differ.
    """
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompts, query = source.spec.prompts, "the red mug"
    for variant in prompts.variants:
        messages = prompts.messages(query, variant, {"type": "image"})
        written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        written += prompts.template(variant).prefill
        if written != (expected := prompts.render(query, variant, 1)):
            raise VerificationError(f"the chat template of {source.folder} writes {written!r}, want {expected!r}")


def check_numbers(source: PolicyCheckpoint, folder: Path, method: str) -> Iterator[Figure]:
    """Compare vision tower and language model with transformers over an image, a query and its answer.

    Args:
        source: the checkpoint; its first sample is used.
        folder: with `llm/model.onnx` and `visual/model.onnx`.
        method: "fp16" has a bound, the others are only reported.
    """
    pixels, words = source.torch_reference.graph_inputs(source.references[0])
    bound = BOUND if method == "fp16" else None
    yield Figure("edgellm vision tower", _vision_error(source, folder, pixels), "relative error", at_most=bound)
    if method not in _PLUGIN_PRODUCTS:
        yield Figure("edgellm language model", _language_error(source, folder, words), "relative error", at_most=bound)


def _vision_error(source: PolicyCheckpoint, folder: Path, pixels: Batch) -> float:
    visual = source.model.model.visual
    columns, rows = patch_grid(source.spec, source.references[0].grid)
    angles = rotary_angles(visual, columns, rows).numpy()
    feeds: Batch = {
        "input": pixels["pixel_values"].astype(np.float16),
        "rotary_pos_emb": angles[:, : angles.shape[1] // 2].astype(np.float32),
        "cu_seqlens": np.array([0, columns * rows], np.int32),
        "max_seqlen_carrier": np.zeros(columns * rows, np.int32),
    }
    if hasattr(visual, "window_size"):
        order, windows = window_order(visual, columns, rows)
        lengths = [length * source.spec.merge_size**2 for count, length in windows for _ in range(count)]
        feeds["cu_window_seqlens"] = np.cumsum([0, *lengths]).astype(np.int32)
        feeds["window_index"], feeds["reverse_window_index"] = order, np.argsort(order)
    if hasattr(visual, "pos_embed"):
        places, shares = interpolation(visual, columns, rows)
        feeds["fast_pos_embed_idx"], feeds["fast_pos_embed_weight"] = places.T.numpy(), shares.T.half().numpy()
    with torch.no_grad():
        seen = visual(torch.from_numpy(pixels["pixel_values"]), grid_thw=torch.tensor([[1, rows, columns]]))
    expected = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
    outputs = _run(folder / "visual" / "model.onnx", feeds)
    return max(_error(got, features.numpy()) for got, features in zip(outputs, expected, strict=True))


def _language_error(source: PolicyCheckpoint, folder: Path, words: Batch) -> float:
    """Return the largest error of the logits after the prompt, in the middle of the answer and at its end."""
    spec = source.spec
    embeds, positions = words["inputs_embeds"], words["position_ids"]
    deeper = words.get(DEEPSTACK, np.zeros(0)).astype(np.float16)
    expected = source.torch_reference.repeat(source.references[0]).numpy()
    count = embeds.shape[1]
    completion = len(source.references[0].completion)
    errors = []
    for length in sorted({count - completion, count - completion // 2, count}):
        pages = -(-length // _PAGE)
        empty = np.zeros((2, pages, _PAGE, spec.num_kv_heads, spec.head_dim), np.float16)
        one, none = np.array([length], np.int32), np.zeros(1, np.int32)
        feeds: Batch = {
            "inputs_embeds": embeds[0, :length].astype(np.float16),
            "rope_rotary_cos_sin": _rope(source, positions[:, 0, :length]),
            "positions": np.arange(length, dtype=np.int32),
            "query_start_offsets": np.array([0, length], np.int32),
            "query_lengths": one,
            "past_lengths": none,
            "attention_sequence_lengths": one,
            "state_indices": none,
            "execution_phase_marker": none,
            "context_sequence_count_carrier": none,
            "kv_page_table": np.arange(2 * pages, dtype=np.int32).reshape(1, 2, pages),
            "logits_indices": np.array([length - 1]),
            **{f"past_key_values_{layer}": empty for layer in range(spec.num_layers)},
            **{f"deepstack_embeds_{layer}": rows[:length] for layer, rows in enumerate(deeper)},
        }
        logits = _run(folder / "llm" / "model.onnx", feeds)[0]
        errors.append(_error(logits[0], expected[length - 1]))
    return max(errors)


def _rope(source: PolicyCheckpoint, positions: Array) -> npt.NDArray[np.float32]:
    """Return cosines and sines [tokens, head_dim] for positions [3, tokens] of M-RoPE."""
    rotary = source.model.model.language_model.rotary_emb
    angles = positions[rotary_axes(rotary).numpy()].T * rotary.inv_freq.numpy()
    both: npt.NDArray[np.float32] = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return both


def _error(got: Array, expected: Array) -> float:
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())


def _run(graph: Path, feeds: Batch) -> list[Array]:
    """Return the outputs of a graph."""
    evaluator = ReferenceEvaluator(str(graph), new_ops=[AttentionPlugin, ViTAttentionPlugin])
    names = {value.name for value in load_light(graph).graph.input}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # its Sigmoid computes both branches, one of which overflows
        outputs: Any = evaluator.run(None, {name: array for name, array in feeds.items() if name in names})
    return list(outputs)


class AttentionPlugin(OpRun):
    """Causal attention over one sequence; the reference runtime finds an operator by its class's name.

    Qwen3's norms of queries and keys belong to it: their weights are inputs behind the six that every node has.
    """

    op_domain = _DOMAIN

    def _run(self, qkv: Array, past: Array, lengths: Array, rope: Array, *more: Array, **options: Any) -> Any:
        heads, shared, width = options["num_q_heads"], options["num_kv_heads"], options["head_size"]
        parts = qkv.astype(np.float32).reshape(len(qkv), heads + 2 * shared, width)
        query, key, value = np.split(parts, [heads, heads + shared], axis=1)
        if options["enable_qk_norm"]:
            query, key = (_norm(*pair, options["rms_norm_eps"]) for pair in ((query, more[2]), (key, more[3])))
        query, key = _rotate(query, rope), _rotate(key, rope)
        key, value = (np.repeat(part, heads // shared, axis=1) for part in (key, value))
        causal = np.triu(np.full((len(qkv), len(qkv)), -np.inf, np.float32), 1)
        out = _attend(query, key, value, options["attention_scale"], causal)
        return out.astype(qkv.dtype), past


class ViTAttentionPlugin(OpRun):
    """Attention within windows."""

    op_domain = _DOMAIN

    def _run(self, query: Array, key: Array, value: Array, starts: Array, *_: Array, **options: Any) -> Any:
        shape = (-1, options["num_heads"], options["head_size"])
        q, k, v = (part.astype(np.float32).reshape(shape) for part in (query, key, value))
        window = np.searchsorted(starts, np.arange(len(query)), side="right")
        apart = np.where(window[:, None] == window, 0, -np.inf).astype(np.float32)
        out = _attend(q, k, v, options["attention_scale"], apart)
        return (out.reshape(query.shape).astype(query.dtype),)


def _norm(states: Array, gain: Array, eps: float) -> Array:
    scaled: Array = states / np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + eps) * gain.astype(np.float32)
    return scaled


def _rotate(states: Array, rope: Array) -> Array:
    half = states.shape[-1] // 2
    first, second = states[..., :half], states[..., half:]
    cos, sin = rope[:, None, :half], rope[:, None, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _attend(query: Array, key: Array, value: Array, scale: float, mask: Array) -> Array:
    """Attend; all [tokens, heads, width]."""
    scores = np.einsum("qhd,khd->hqk", query, key) * scale + mask
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out: Array = np.einsum("hqk,khd->qhd", weights, value)
    return out
