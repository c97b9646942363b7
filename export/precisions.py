"""The types of number that an export can be asked for, by the option that names them.

Everything here is plain data: `wise-edge export --help` lists it with the core installed alone.
"""

from __future__ import annotations

ONNX_PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "int4")
"""Of the policy's graphs: arithmetic in float32 or 16 bits (float16, bfloat16), products of eight-bit floats, or
weights of 8 or 4 bits with float arithmetic."""
SAM_PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8")
"""Of the segmenter's graphs; 8 bits apply to its image encoder."""

FILE_TYPES = ("F32", "F16", "BF16")
"""GGUF types that a checkpoint is converted to; llama.cpp's quantizer makes the others from one of these."""
LOGIT_TOLERANCES = {"F32": 1e-3, "F16": 1e-2, "BF16": 5e-2}
"""Largest difference of logits with weights of these types, over the largest logit. With F32, only llama.cpp's GELU
differs, a table in half precision; F16 and BF16 round factors to 11 and 8 bits."""
QUANTIZATION_TYPES = (
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q4_K_M",
    "Q3_K_M",
    "IQ4_XS",
    "IQ4_NL",
    "Q4_0",
    "IQ3_XXS",
    "IQ2_XXS",
)
"""GGUF types that llama.cpp's quantizer makes."""
TEXT_TYPES = (*FILE_TYPES, *QUANTIZATION_TYPES)
"""GGUF types of the language model."""
VISION_TYPES = (*FILE_TYPES, "Q8_0")
"""GGUF types of the vision tower."""
NEED_IMPORTANCE = ("IQ3_XXS", "IQ2_XXS")
"""Types that llama.cpp makes only with an importance matrix."""

EDGELLM_METHODS = {"fp16": "fp16", "fp8": "fp8", "int8_sq": "int8", "int4_awq": "int4", "nvfp4": "fp4"}
"""Quantization methods of TensorRT Edge-LLM for the language model, and the number type that a GPU needs for each."""
