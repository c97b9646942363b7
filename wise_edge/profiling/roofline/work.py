"""The arithmetic and memory traffic of each phase, from the shapes of its models."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.errors import UsageError
from wise_edge.profiling.roofline.shapes import DevicePeaks, PolicyShape, Quant, SegmenterShape

_HALF_BYTES = 2


@dataclass(frozen=True)
class Work:
    """What a phase computes and reads.

    Attributes:
        flops: multiplications and additions.
        bytes: weights, keys and values that are read.
        fp4: whether products are computed in 4 bits.
    """

    flops: float
    bytes: float
    fp4: bool = False

    def bound_ms(self, device: DevicePeaks) -> float:
        """Return the least time that it takes on a device."""
        peak = device.fp4_tflops if self.fp4 and device.fp4_tflops else device.compute_tflops
        return 1e3 * max(self.flops / (peak * 1e12), self.bytes / (device.bandwidth_gb_s * 1e9))


def image_tokens(policy: PolicyShape, side_px: int | None = None) -> int:
    """Return how many tokens a square image becomes; raises `UsageError` if the patches do not divide its side."""
    side_px = policy.side_px if side_px is None else side_px
    if side_px <= 0 or side_px % (2 * policy.patch_px):
        raise UsageError(
            f"{policy.name} needs an image side that is a multiple of {2 * policy.patch_px} px, not {side_px}"
        )
    return (side_px // (2 * policy.patch_px)) ** 2


def layer_parameters(policy: PolicyShape) -> int:
    """Return the weights of the language model's layers; every token reads all of them."""
    attention = policy.hidden * policy.head_dim * 2 * (policy.heads + policy.kv_heads)
    return policy.layers * (attention + 3 * policy.hidden * policy.feed_forward)


def vision_parameters(policy: PolicyShape) -> int:
    """Return the weights of the vision tower's layers and of its mergers."""
    width = policy.vision_hidden
    matrices = 3 if policy.vision_gated else 2
    layer = 4 * width**2 + matrices * width * policy.vision_feed_forward
    return policy.vision_layers * layer + _merger_parameters(policy)


def _merger_parameters(policy: PolicyShape) -> int:
    """Return the weights of the mergers, which turn four patches into a token and run once per token."""
    four = 4 * policy.vision_hidden
    return policy.mergers * (four**2 + four * policy.hidden)


def resident_bytes(policy: PolicyShape, quant: Quant) -> float:
    """Return the memory of the weights, the vision tower in 16 bits; keys, values and activations are not included."""
    table = policy.vocabulary * policy.hidden
    copies = 1 if policy.tied else 2
    return (
        layer_parameters(policy) * quant.bits / 8
        + copies * table * quant.head_bits / 8
        + _HALF_BYTES * vision_parameters(policy)
    )


def vision_work(policy: PolicyShape, tokens: int) -> Work:
    """Return the work of encoding an image, in 16 bits."""
    patches = 4 * tokens
    weights, mergers = vision_parameters(policy), _merger_parameters(policy)
    products = 2 * (weights - mergers) * patches + 2 * mergers * tokens
    attention = 4 * patches**2 * policy.vision_hidden * (policy.vision_layers - policy.vision_windowed)
    window = 64  # patches of 112 px
    attention += 4 * patches * window * policy.vision_hidden * policy.vision_windowed
    return Work(products + attention, _HALF_BYTES * weights)


def prefill_work(policy: PolicyShape, quant: Quant, tokens: int) -> Work:
    """Return the work of running a prompt; the output layer runs only for its last token."""
    attention = 2 * tokens**2 * policy.heads * policy.head_dim * policy.layers  # causal: half of all pairs
    head = policy.vocabulary * policy.hidden
    weights = layer_parameters(policy)
    read = weights * quant.bits / 8 + head * quant.head_bits / 8
    return Work(2 * weights * tokens + attention + 2 * head, read, quant.fp4)


def decode_work(policy: PolicyShape, quant: Quant, context: int) -> Work:
    """Return the work of one token after a context of `context` tokens."""
    weights, head = layer_parameters(policy), policy.vocabulary * policy.hidden
    keys = 2 * policy.layers * policy.kv_heads * policy.head_dim * context
    attention = 4 * context * policy.heads * policy.head_dim * policy.layers
    read = weights * quant.bits / 8 + head * quant.head_bits / 8 + _HALF_BYTES * keys
    return Work(2 * (weights + head) + attention, read, quant.fp4)


def segmenter_work(segmenter: SegmenterShape) -> Work:
    """Return the work of encoding an image for a mask, in 16 bits."""
    tokens, width, window = 4096, segmenter.hidden, 14
    padded = 70**2  # 64 patches padded to a multiple of 14
    global_layers, windowed = 4, segmenter.layers - 4
    weights = segmenter.layers * 12 * width**2
    feed_forward = 2 * segmenter.layers * 8 * width**2 * tokens
    projections = 2 * 4 * width**2 * (global_layers * tokens + windowed * padded)
    attention = 4 * width * (global_layers * tokens**2 + windowed * padded * window**2)
    neck = 2 * tokens * (width * 256 + 9 * 256 * 256)
    return Work(feed_forward + projections + attention + neck, _HALF_BYTES * weights)
