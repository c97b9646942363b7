"""Shapes of models and peaks of devices that `wise-edge profile plan` can combine.

Shapes come from the published configurations. Peaks are dense and come from the vendor's data sheets; those of Jetson
Orin follow from 2,048 operations per clock and multiprocessor in 16 bits, those of GeForce from twice the 32-bit rate
(half precision with single-precision accumulation). https://developer.nvidia.com/embedded/jetson-modules,
https://www.nvidia.com/en-us/geforce/graphics-cards/compare/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from wise_edge.errors import UsageError

Phase = Literal["vision_encode", "prefill", "decode", "mask_encode"]
"""What is estimated; mask decoding is bound by neither arithmetic nor memory."""


@dataclass(frozen=True)
class PolicyShape:
    """Shape of a vision-language model.

    Attributes:
        name: value of `--model`.
        hidden: width of the language model.
        layers: layers of the language model.
        heads: its attention heads.
        kv_heads: its key/value heads.
        head_dim: width of a head.
        feed_forward: intermediate width of its gated feed-forward layers.
        vocabulary: rows of the output layer.
        tied: whether the output layer shares the embedding.
        vision_hidden: width of the vision tower.
        vision_layers: its layers.
        vision_feed_forward: its intermediate width.
        vision_gated: whether its feed-forward layers have three matrices (True) or two.
        vision_windowed: its layers that attend only within windows.
        mergers: how often four patches become one token: at the end of the tower, and after layers whose features are
            added to the language model's (Qwen3-VL's DeepStack, https://arxiv.org/abs/2511.21631).
        patch_px: side of a patch; four patches become one token.
        side_px: image side closest to the paper's 840 that its patches divide.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_layers: int
    vision_feed_forward: int
    vision_gated: bool
    vision_windowed: int
    mergers: int
    patch_px: int
    side_px: int


@dataclass(frozen=True)
class SegmenterShape:
    """Shape of a SAM's image encoder (https://arxiv.org/abs/2304.02643): 1,024 px, patches of 16, windows of 14.

    Attributes:
        name: value of `--sam`.
        hidden: width.
        layers: how many; four of them attend globally.
    """

    name: str
    hidden: int
    layers: int


@dataclass(frozen=True)
class DevicePeaks:
    """Published peaks of a device.

    Attributes:
        name: value of `--device`.
        description: the product.
        gpu: name of its kind of GPU in `wise_edge.bundle.devices`.
        family: devices that reach similar shares of their peaks.
        bandwidth_gb_s: memory bandwidth.
        memory_gb: memory size.
        compute_tflops: dense operations in 16 bits.
        fp4_tflops: dense operations in NVIDIA's 4-bit format; None if it lacks that.
        power_w: maximum power of the module or card.
    """

    name: str
    description: str
    gpu: str
    family: str
    bandwidth_gb_s: float
    memory_gb: float
    compute_tflops: float
    fp4_tflops: float | None
    power_w: float


@dataclass(frozen=True)
class Quant:
    """How weights are stored.

    Attributes:
        name: value of `--quant`.
        bits: bits per weight of the layers, scales included.
        head_bits: bits per weight of the output layer.
        runtime: "tensorrt" or "llama": whose published measurements apply.
        fp4: whether products are computed in 4 bits.
    """

    name: str
    bits: float
    head_bits: float
    runtime: Literal["tensorrt", "llama"]
    fp4: bool = False


POLICIES = (
    PolicyShape("qwen2-vl-2b", 1536, 28, 12, 2, 128, 8960, 151936, True, 1280, 32, 5120, False, 0, 1, 14, 840),
    PolicyShape("qwen2-vl-7b", 3584, 28, 28, 4, 128, 18944, 152064, False, 1280, 32, 5120, False, 0, 1, 14, 840),
    PolicyShape("qwen2.5-vl-3b", 2048, 36, 16, 2, 128, 11008, 151936, True, 1280, 32, 3420, True, 28, 1, 14, 840),
    PolicyShape("qwen2.5-vl-7b", 3584, 28, 28, 4, 128, 18944, 152064, False, 1280, 32, 3420, True, 28, 1, 14, 840),
    PolicyShape("qwen3-vl-2b", 2048, 28, 16, 8, 128, 6144, 151936, True, 1024, 24, 4096, False, 0, 4, 16, 832),
    PolicyShape("qwen3-vl-4b", 2560, 36, 32, 8, 128, 9728, 151936, True, 1024, 24, 4096, False, 0, 4, 16, 832),
    PolicyShape("qwen3-vl-8b", 4096, 36, 32, 8, 128, 12288, 151936, False, 1152, 27, 4304, False, 0, 4, 16, 832),
)
SEGMENTERS = (
    SegmenterShape("sam-vit-b", 768, 12),
    SegmenterShape("sam-vit-l", 1024, 24),
    SegmenterShape("sam-vit-h", 1280, 32),
)
DEVICES = (
    DevicePeaks("orin-nano", "Jetson Orin Nano 8 GB, 15 W", "orin", "orin", 68, 8, 10.2, None, 15),
    DevicePeaks("orin-nano-super", "Jetson Orin Nano 8 GB, MAXN_SUPER", "orin", "orin", 102, 8, 16.7, None, 25),
    DevicePeaks("orin-nx", "Jetson Orin NX 16 GB, MAXN", "orin", "orin", 102.4, 16, 15.0, None, 25),
    DevicePeaks("orin-nx-super", "Jetson Orin NX 16 GB, MAXN_SUPER", "orin", "orin", 102.4, 16, 19.2, None, 40),
    DevicePeaks("agx-orin-32", "Jetson AGX Orin 32 GB", "orin", "orin", 204.8, 32, 26.7, None, 40),
    DevicePeaks("agx-orin", "Jetson AGX Orin 64 GB", "orin", "orin", 204.8, 64, 42.6, None, 60),
    DevicePeaks("thor", "Jetson AGX Thor, T5000", "thor", "thor", 273, 128, 259, 1035, 130),
    DevicePeaks("rtx-3060", "GeForce RTX 3060 12 GB", "sm86", "rtx", 360, 12, 25.5, None, 170),
    DevicePeaks("rtx-3090", "GeForce RTX 3090", "sm86", "rtx", 936, 24, 71, None, 350),
    DevicePeaks("rtx-4060", "GeForce RTX 4060", "sm89", "rtx", 272, 8, 30.2, None, 115),
    DevicePeaks("rtx-4070", "GeForce RTX 4070", "sm89", "rtx", 504, 12, 58.3, None, 200),
    DevicePeaks("rtx-4090", "GeForce RTX 4090", "sm89", "rtx", 1008, 24, 165, None, 450),
    DevicePeaks("rtx-5090", "GeForce RTX 5090", "sm120", "rtx", 1792, 32, 209.5, 1676, 575),
    DevicePeaks("a100", "A100 80 GB SXM", "sm80", "a100", 2039, 80, 312, None, 400),
)
QUANTS = (
    Quant("fp16", 16, 16, "tensorrt"),
    Quant("int8", 8.25, 16, "tensorrt"),
    Quant("int4", 4.25, 16, "tensorrt"),
    Quant("nvfp4", 4.5, 16, "tensorrt", fp4=True),
    Quant("F16", 16, 16, "llama"),
    Quant("Q8_0", 8.5, 8.5, "llama"),
    Quant("Q6_K", 6.5625, 6.5625, "llama"),
    Quant("Q5_K_M", 5.7, 6.5625, "llama"),
    Quant("Q4_K_M", 4.85, 6.5625, "llama"),
    Quant("Q4_0", 4.5, 6.5625, "llama"),
    Quant("IQ4_XS", 4.25, 6.5625, "llama"),
)

Named = TypeVar("Named", PolicyShape, SegmenterShape, DevicePeaks, Quant)


def find(table: Sequence[Named], name: str, option: str) -> Named:
    """Return the entry of a table with a name; raises `UsageError` with all names if there is none."""
    for entry in table:
        if entry.name == name:
            return entry
    raise UsageError(f"unknown {option} '{name}'; choose one of {', '.join(entry.name for entry in table)}")
