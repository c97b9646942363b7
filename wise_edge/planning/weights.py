"""The forms in which a bundle may hold a policy's weights: for each target, 16, 8 and 4 bits.

Bits include the scales of blocks. Types of llama.cpp are those of `wise-edge profile plan`; graphs store 8 bits with a
scale for each column, 4 with one for every 64 weights, and keep head and vision tower in 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.export.options import ExportOptions
from wise_edge.export.precisions import EDGELLM_METHODS
from wise_edge.profiling.roofline.shapes import QUANTS, find

_RAGGED_BITS = {"Q4_K_M": 6.0}
"""Of rows that are no whole blocks of 256: Q5_0 and Q8_0, as counted in `docs/results.md`."""


@dataclass(frozen=True)
class Weights:
    """How a policy's weights are stored.

    Attributes:
        target: the target of `wise-edge export`.
        name: its name for the target's option.
        bits: 32, 16, 8 or 4, for `--bits`.
        layer_bits: bits of a weight of the language model's layers.
        ragged_bits: the same in rows that are no whole blocks.
        head_bits: bits of a weight of the head and the embedding.
        vision_bits: bits of a weight of the vision tower.
        number_type: the type that a GPU needs for it, see `devices.MIN_CAPABILITY`.
        holds_table: whether the embedding is in memory beside a head of its own, not mapped from its file.
    """

    target: str
    name: str
    bits: int
    layer_bits: float
    ragged_bits: float
    head_bits: float
    vision_bits: float
    number_type: str
    holds_table: bool = True


def _gguf(name: str, bits: int) -> Weights:
    kind = find(QUANTS, name, "quant")
    return Weights("gguf", name, bits, kind.bits, _RAGGED_BITS.get(name, kind.bits), kind.head_bits, 16, "")


def _graphs(target: str) -> tuple[Weights, ...]:
    half = Weights(target, "fp16", 16, 16, 16, 16, 16, "fp16", holds_table=False)
    eight = Weights(target, "int8", 8, 8.25, 8.25, 8.25, 8.25, "int8", holds_table=False)
    four = Weights(target, "int4", 4, 4.25, 4.25, 8.25, 8.25, "int4", holds_table=False)
    return half, eight, four


def _edgellm(name: str, bits: int, layer_bits: float) -> Weights:
    return Weights("edgellm", name, bits, layer_bits, layer_bits, 16, 16, EDGELLM_METHODS[name])


GGUF = (_gguf("F16", 16), _gguf("Q8_0", 8), _gguf("Q4_K_M", 4))
FLOAT32 = Weights("onnx", "fp32", 32, 32, 32, 32, 32, "", holds_table=False)
LADDERS: dict[str, tuple[Weights, ...]] = {
    "tensorrt": _graphs("tensorrt"),
    "edgellm": (_edgellm("fp16", 16, 16), _edgellm("int8_sq", 8, 8.25), _edgellm("int4_awq", 4, 4.25)),
    "llama-gpu": GGUF,
    "onnx-cuda": _graphs("onnx"),
    "llama": GGUF,
    "onnx": (FLOAT32,),
}
"""For each policy backend the forms to try, the most exact first; backends in the order in which they are tried.

llama.cpp comes before ONNX Runtime, which casts or dequantizes weights of 16, 8 and 4 bits at every step.
"""
ASKED_ONLY = (("llama", GGUF[0]),)
"""Ways that are taken if `--bits` asks for them: a CPU reads 8 bits in half the time of 16 (docs/gpu.md)."""
BITS = (16, 8, 4)
IMPORTANT = ("Q4_K_M",)
"""Forms that are better if it is measured, with torch, which columns matter."""


def export_options(weights: Weights, **further: object) -> ExportOptions:
    """Return the options of an export that makes a policy's weights so; `further` are other options."""
    names = {
        "gguf": "quant",
        "onnx": "onnx_precision",
        "tensorrt": "onnx_precision",
        "edgellm": "edgellm_quant",
    }
    chosen = {names[weights.target]: weights.name, "targets": (weights.target,), **further}
    return ExportOptions(**chosen)  # type: ignore[arg-type]
