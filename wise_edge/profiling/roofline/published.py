"""Measurements that others published, from which `wise-edge profile plan` learns how near devices come to the bound."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.profiling.roofline.shapes import Phase


@dataclass(frozen=True)
class Published:
    """A measurement that others published.

    Attributes:
        device: name of a device.
        model: name of a policy or segmenter.
        quant: name of a quantization; None if the source names no precision.
        phase: what was measured.
        tokens: of the image (vision_encode, mask_encode), the prompt (prefill) or the context (decode).
        value_ms: time of the phase; of one token for decode.
        source: where it was published.
    """

    device: str
    model: str
    quant: str | None
    phase: Phase
    tokens: int
    value_ms: float
    source: str


_EDGE_LLM = "NVIDIA, TensorRT Edge-LLM 0.9.0, performance benchmarks"
_EDGE_LLM_4 = "NVIDIA, TensorRT Edge-LLM 0.4.0, performance benchmarks"
_ISSUE_60 = "github.com/NVIDIA/TensorRT-Edge-LLM, issue 60, a user's"
_CHOI = "hokwangchoi.com, VLM benchmarks on Orin Nano, 2026"
_SAM = "segment-anything.com, in PyTorch"


def _rows(
    device: str, model: str, quant: str, prompt: tuple[int, float], vision: tuple[int, float], rate: float | None
) -> tuple[Published, ...]:
    """Return a line of NVIDIA's table: tokens and ms of the prompt and of the image, and tokens per second."""
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
"""NVIDIA's table is for JetPack 7.2 and names no power modes: we assume MAXN_SUPER for Orin NX and 15 W for Orin Nano,
which brings their shares in line with AGX Orin's. If a source names no context length, we assume 300 tokens; it hardly
matters. Cosmos-Reason2-2B (of the blog) has the shape of Qwen3-VL-2B. SAM's page says "~0.15 s" without saying whether
in 32 or 16 bits, so the share of the 16-bit peak may be higher."""
