"""What `wise-edge profile plan` knows: shapes of models, peaks of devices, and measurements that others published.

Shapes are those of the published configurations. Peaks are dense and of the vendor's data sheets; of Jetson Orin they
follow from its 2,048 operations a clock and multiprocessor in 16 bits, of GeForce from twice the rate in 32 bits (half
precision that accumulates in single). https://developer.nvidia.com/embedded/jetson-modules,
https://www.nvidia.com/en-us/geforce/graphics-cards/compare/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["vision_encode", "prefill", "decode", "mask_encode"]
"""What is estimated; decoding a mask is bound by neither arithmetic nor bytes."""


@dataclass(frozen=True)
class Policy:
    """Shape of a vision-language model.

    Attributes:
        name: what `--model` takes.
        hidden: width of the language model.
        layers: its layers.
        heads: its attention heads.
        kv_heads: its heads of keys and values.
        head_dim: width of a head.
        feed_forward: width between, of gated feed-forward layers.
        vocabulary: rows of the output layer.
        tied: whether the output layer is the embedding.
        vision_hidden: width of the vision tower.
        vision_layers: its layers.
        vision_feed_forward: width between.
        vision_gated: whether its feed-forward layers have three matrices or two.
        vision_windowed: layers of it that attend in windows only.
        mergers: how many times four patches become a token: at the tower's end, and after layers of it whose features
            are added to the language model's (Qwen3-VL's DeepStack, https://arxiv.org/abs/2511.21631).
        patch_px: side of a patch; four patches become one token.
        side_px: side of the picture nearest to the paper's 840 that its patches divide.
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
class Segmenter:
    """Shape of a SAM's image encoder (https://arxiv.org/abs/2304.02643): 1,024 px, patches of 16, windows of 14.

    Attributes:
        name: what `--sam` takes.
        hidden: width.
        layers: how many; four of them attend to everything.
    """

    name: str
    hidden: int
    layers: int


@dataclass(frozen=True)
class Device:
    """Published peaks of a device.

    Attributes:
        name: what `--device` takes.
        description: the product.
        family: devices whose shares of their peaks are alike.
        bandwidth_gb_s: of its memory.
        memory_gb: its size.
        compute_tflops: dense operations in 16 bits.
        fp4_tflops: dense operations in NVIDIA's 4 bits; None where it has none.
        power_w: most that the module or card may take.
    """

    name: str
    description: str
    family: str
    bandwidth_gb_s: float
    memory_gb: float
    compute_tflops: float
    fp4_tflops: float | None
    power_w: float


@dataclass(frozen=True)
class Quant:
    """How weights are kept.

    Attributes:
        name: what `--quant` takes.
        bits: a weight of the layers, scales included.
        head_bits: a weight of the output layer.
        runtime: "tensorrt" or "llama", whose published measurements count.
        fp4: whether products are computed in 4 bits.
    """

    name: str
    bits: float
    head_bits: float
    runtime: Literal["tensorrt", "llama"]
    fp4: bool = False


@dataclass(frozen=True)
class Published:
    """A measurement that others published.

    Attributes:
        device: what `Device.name` is.
        model: name of a policy or segmenter.
        quant: name of a quantization; None where the source names no precision.
        phase: what was measured.
        tokens: of the picture (vision_encode), of the prompt (prefill), of the context (decode).
        value_ms: for the phase; for one token where that is decode.
        source: where it stands.
    """

    device: str
    model: str
    quant: str | None
    phase: Phase
    tokens: int
    value_ms: float
    source: str


POLICIES = (
    Policy("qwen2-vl-2b", 1536, 28, 12, 2, 128, 8960, 151936, True, 1280, 32, 5120, False, 0, 1, 14, 840),
    Policy("qwen2-vl-7b", 3584, 28, 28, 4, 128, 18944, 152064, False, 1280, 32, 5120, False, 0, 1, 14, 840),
    Policy("qwen2.5-vl-3b", 2048, 36, 16, 2, 128, 11008, 151936, True, 1280, 32, 3420, True, 28, 1, 14, 840),
    Policy("qwen2.5-vl-7b", 3584, 28, 28, 4, 128, 18944, 152064, False, 1280, 32, 3420, True, 28, 1, 14, 840),
    Policy("qwen3-vl-2b", 2048, 28, 16, 8, 128, 6144, 151936, True, 1024, 24, 4096, False, 0, 4, 16, 832),
    Policy("qwen3-vl-4b", 2560, 36, 32, 8, 128, 9728, 151936, True, 1024, 24, 4096, False, 0, 4, 16, 832),
    Policy("qwen3-vl-8b", 4096, 36, 32, 8, 128, 12288, 151936, False, 1152, 27, 4304, False, 0, 4, 16, 832),
)
SEGMENTERS = (Segmenter("sam-vit-b", 768, 12), Segmenter("sam-vit-l", 1024, 24), Segmenter("sam-vit-h", 1280, 32))
DEVICES = (
    Device("orin-nano", "Jetson Orin Nano 8 GB, 15 W", "orin", 68, 8, 10.2, None, 15),
    Device("orin-nano-super", "Jetson Orin Nano 8 GB, MAXN_SUPER", "orin", 102, 8, 16.7, None, 25),
    Device("orin-nx", "Jetson Orin NX 16 GB, MAXN", "orin", 102.4, 16, 15.0, None, 25),
    Device("orin-nx-super", "Jetson Orin NX 16 GB, MAXN_SUPER", "orin", 102.4, 16, 19.2, None, 40),
    Device("agx-orin-32", "Jetson AGX Orin 32 GB", "orin", 204.8, 32, 26.7, None, 40),
    Device("agx-orin", "Jetson AGX Orin 64 GB", "orin", 204.8, 64, 42.6, None, 60),
    Device("thor", "Jetson AGX Thor, T5000", "thor", 273, 128, 259, 1035, 130),
    Device("rtx-3060", "GeForce RTX 3060 12 GB", "rtx", 360, 12, 25.5, None, 170),
    Device("rtx-3090", "GeForce RTX 3090", "rtx", 936, 24, 71, None, 350),
    Device("rtx-4060", "GeForce RTX 4060", "rtx", 272, 8, 30.2, None, 115),
    Device("rtx-4070", "GeForce RTX 4070", "rtx", 504, 12, 58.3, None, 200),
    Device("rtx-4090", "GeForce RTX 4090", "rtx", 1008, 24, 165, None, 450),
    Device("rtx-5090", "GeForce RTX 5090", "rtx", 1792, 32, 209.5, 1676, 575),
    Device("a100", "A100 80 GB SXM", "a100", 2039, 80, 312, None, 400),
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

_EDGE_LLM = "NVIDIA, TensorRT Edge-LLM 0.9.0, performance benchmarks"
_EDGE_LLM_4 = "NVIDIA, TensorRT Edge-LLM 0.4.0, performance benchmarks"
_ISSUE_60 = "github.com/NVIDIA/TensorRT-Edge-LLM, issue 60, a user's"
_CHOI = "hokwangchoi.com, VLM benchmarks on Orin Nano, 2026"
_SAM = "segment-anything.com, in PyTorch"


def _rows(
    device: str, model: str, quant: str, prompt: tuple[int, float], vision: tuple[int, float], rate: float | None
) -> tuple[Published, ...]:
    """Return a line of NVIDIA's table: tokens and ms of the prompt and of the picture, and tokens a second."""
    rows = [
        Published(device, model, quant, "prefill", *prompt, _EDGE_LLM),
        Published(device, model, quant, "vision_encode", *vision, _EDGE_LLM),
    ]
    if rate is not None:
        rows.append(Published(device, model, quant, "decode", prompt[0], 1e3 / rate, _EDGE_LLM))
    return tuple(rows)


PUBLISHED = (
    *_rows("agx-orin", "qwen3-vl-2b", "int4", (292, 50.0), (265, 39.0), 98.4),
    *_rows("agx-orin", "qwen3-vl-4b", "int4", (292, 123.7), (265, 39.3), 52.4),
    *_rows("agx-orin", "qwen3-vl-8b", "int4", (292, 225.1), (265, 57.2), 32.3),
    *_rows("agx-orin", "qwen2.5-vl-7b", "int4", (376, 260.9), (349, 89.2), None),
    *_rows("orin-nx-super", "qwen3-vl-2b", "int4", (292, 103.1), (265, 82.1), 60.1),
    *_rows("orin-nx-super", "qwen3-vl-4b", "int4", (292, 244.6), (265, 83.7), 31.2),
    *_rows("orin-nx-super", "qwen3-vl-8b", "int4", (292, 462.1), (265, 120.0), 18.9),
    *_rows("orin-nx-super", "qwen2.5-vl-7b", "int4", (376, 535.5), (349, 208.5), None),
    *_rows("orin-nano", "qwen3-vl-2b", "int4", (292, 190.9), (265, 151.1), 36.9),
    *_rows("thor", "qwen3-vl-4b", "int4", (292, 85.2), (266, 11.7), 79.0),
    *_rows("thor", "qwen3-vl-8b", "int4", (292, 156.5), (265, 15.8), 48.9),
    *_rows("thor", "qwen2.5-vl-7b", "int4", (376, 177.4), (349, 32.8), None),
    *_rows("thor", "qwen3-vl-2b", "nvfp4", (292, 10.7), (266, 11.7), 151.9),
    *_rows("thor", "qwen3-vl-4b", "nvfp4", (292, 20.4), (265, 12.2), 79.4),
    *_rows("thor", "qwen3-vl-8b", "nvfp4", (292, 30.2), (265, 15.8), 47.1),
    Published("thor", "qwen2.5-vl-7b", "int4", "decode", 376, 1e3 / 53.1, _EDGE_LLM_4),
    Published("agx-orin", "qwen2.5-vl-3b", "fp16", "decode", 300, 1e3 / 27.2, _ISSUE_60),
    Published("agx-orin", "qwen2.5-vl-3b", "int8", "decode", 300, 1e3 / 45.2, _ISSUE_60),
    Published("agx-orin", "qwen2.5-vl-3b", "int4", "decode", 300, 1e3 / 71.8, _ISSUE_60),
    Published("agx-orin", "qwen3-vl-4b", "fp16", "decode", 300, 1e3 / 20.2, _ISSUE_60),
    Published("agx-orin", "qwen3-vl-4b", "int8", "decode", 300, 1e3 / 35.5, _ISSUE_60),
    Published("orin-nano-super", "qwen3-vl-2b", "int4", "decode", 300, 1e3 / 60, _CHOI),
    Published("orin-nano-super", "qwen3-vl-2b", "Q4_K_M", "decode", 300, 1e3 / 38, _CHOI),
    Published("a100", "sam-vit-h", None, "mask_encode", 4096, 150.0, _SAM),
)
"""NVIDIA's table is of JetPack 7.2 and names no power modes: Orin NX is taken as MAXN_SUPER and Orin Nano as 15 W, with
which their shares agree with AGX Orin's. Where a source names no length of the context, 300 tokens are taken; it hardly
counts. Cosmos-Reason2-2B (the blog's) has the shape of Qwen3-VL-2B. SAM's page says "~0.15 s"; whether that is of 32 or
16 bits it does not, so that the share of 16 bits' peak may be higher."""
