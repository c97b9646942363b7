"""The memory that running a bundle takes, and the memory that exporting it takes, by arithmetic on its sizes.

Weights, keys and values are counted exactly. What a runtime holds besides follows from its largest arrays: the
attention of the vision tower and of the segmenter, and the logits. `docs/log.md` compares sums with measured peaks. On
a GPU nothing was measured: the arrays are taken to be the CPU's, which a runtime with fused attention does not need.
"""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.planning.sizes import PolicySize, SamSize
from wise_edge.planning.weights import Weights
from wise_edge.runtimes.policy.llama import cache_tokens

PROCESS_BYTES = 150_000_000
"""Python with the runtimes, measured with the embedded models."""
TORCH_BYTES = 600_000_000
"""Python with torch and transformers, measured before the first tensor (`benchmarks/gguf_streaming.py`)."""
_FLOAT32, _HALF = 4, 2
_BATCH = 512
"""Tokens that llama.cpp computes at once (`n_ubatch`), for each of which it reserves logits and attention."""
_MASK, _LAYERS = 6, 8
"""llama.cpp's fused vision tower: bytes of its mask for each pair of patches, and arrays as wide as the tower."""
_COPIES, _COPIES_ON_CPU = 2, 4
"""Arrays of attention that exist at once: products, and what the softmax makes of them. ONNX Runtime on a CPU holds
relative positions besides: encoding with SAM vit_b took 3.1 GB beyond its weights, 3.9 times such an array."""
_BUILDING, _BUILDER_BYTES = 1.4, 2_500_000_000
"""What TensorRT for RTX takes for each byte of weights, and at least: 11.1 GB for 6.19, 5.6 for 1.76, 3.6 for 1.35."""
_PACKED = 1.4
"""What ONNX Runtime on a CPU holds of weights, in a layout of its own too: 510 MB for the 375 of vit_b."""


@dataclass(frozen=True)
class Part:
    """Something that takes memory.

    Attributes:
        name: what it is.
        bytes: how much.
        on_gpu: whether the GPU holds it, if the device has one.
    """

    name: str
    bytes: int
    on_gpu: bool


def running(
    policy: PolicySize, sam: SamSize, weights: Weights, sam_precision: str, *, policy_gpu: bool, mask_gpu: bool
) -> tuple[Part, ...]:
    """Return what running a bundle takes.

    Args:
        policy: the policy.
        sam: the segmenter.
        weights: how the policy's weights are stored.
        sam_precision: precision of the segmenter's graphs.
        policy_gpu: whether the policy runs on a GPU.
        mask_gpu: whether the segmenter does.
    """
    width = _HALF if sam_precision == "fp16" else _FLOAT32
    packed, copies = (1.0, _COPIES) if mask_gpu else (_PACKED, _COPIES_ON_CPU)
    return (
        Part("process", PROCESS_BYTES, False),
        Part("policy's weights", policy_bytes(policy, weights), policy_gpu),
        Part("keys and values", cache_bytes(policy, weights), policy_gpu),
        Part("policy's activations", _activations(policy, weights, fused=policy_gpu), policy_gpu),
        Part("segmenter's weights", int(packed * width * sam.weights), mask_gpu),
        Part("segmenter's activations", copies * width * sam.largest, mask_gpu),
    )


def policy_bytes(policy: PolicySize, weights: Weights) -> int:
    """Return the bytes of a policy's weights in memory, and in files with a single grid."""
    layers = (policy.layers - policy.ragged) * weights.layer_bits + policy.ragged * weights.ragged_bits
    tables = policy.table * (1 + policy.own_head) if weights.holds_table else policy.table
    return int(layers + tables * weights.head_bits + policy.vision * weights.vision_bits) // 8


def cache_bytes(policy: PolicySize, weights: Weights) -> int:
    """Return the bytes of keys and values, for as many tokens as a runtime makes room for."""
    spec = policy.spec
    row = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim
    if weights.target == "gguf":
        return row * _HALF * cache_tokens(spec)
    width = _FLOAT32 if weights.name == "fp32" else _HALF
    return row * width * spec.context_tokens * 2  # the past, and the past with what was added


def _activations(policy: PolicySize, weights: Weights, *, fused: bool) -> int:
    """Return the largest arrays beside weights and cache; llama.cpp's language model is fused on a GPU alone."""
    if weights.target != "gguf":
        width = _FLOAT32 if weights.name == "fp32" else _HALF
        pairs = policy.vision_heads * policy.patches**2 + policy.heads * policy.spec.max_image_tokens**2
        return _COPIES * width * pairs
    seeing = _MASK * policy.patches**2 + _FLOAT32 * _LAYERS * policy.patches * policy.vision_width
    of_token = policy.vocabulary + (0 if fused else policy.heads * cache_tokens(policy.spec))
    return seeing + _FLOAT32 * _BATCH * of_token


def building(policy: PolicySize, weights: Weights) -> int:
    """Return the peak of memory of building engines, fitted to four that were measured (docs/results.md).

    The largest graph decides, which is the language model's; engines are built one after the other.
    """
    language = policy_bytes(policy, weights) - int(policy.vision * weights.vision_bits) // 8
    return int(_BUILDING * language) + _BUILDER_BYTES


def exporting(policy: PolicySize, sam: SamSize, weights: Weights, *, with_torch: bool) -> int:
    """Return the peak of memory of an export.

    Args:
        policy: the policy.
        sam: the segmenter.
        weights: what is made of the policy's weights.
        with_torch: whether the policy is loaded in torch: to trace graphs, to measure columns, to compare.
    """
    attention = _FLOAT32 * sam.largest
    tracing = 3 * _FLOAT32 * sam.weights + _COPIES * attention  # torch's weights, the graph's, the file's
    if not with_torch:
        return TORCH_BYTES + max(tracing, 2 * _HALF * policy.largest)
    comparing = int((1 + _PACKED) * _FLOAT32 * sam.weights) + _COPIES_ON_CPU * attention
    seen = _FLOAT32 * _COPIES * policy.vision_heads * policy.patches**2 + policy_bytes(policy, weights)
    return TORCH_BYTES + _FLOAT32 * policy.weights + max(tracing, comparing, seen)
