"""How many prompts one call of a mask decoder takes, and which graphs ONNX Runtime fuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wise_edge.runtimes.graphs.onnx_runtime import gains_by_fusion
from wise_edge.runtimes.mask.calls import most_together
from wise_edge.sam.spec import MOST_PROMPTS, SamSpec

LARGE = SamSpec("mobile_sam", 1024, 256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), multimask=True)


@pytest.mark.parametrize(("low_res_size", "most"), [(1024, 1), (256, 1), (128, 4), (64, 16), (56, 16), (8, 16)])
def test_large_masks_are_decoded_one_by_one_on_a_cpu(low_res_size: int, most: int) -> None:
    spec = replace(LARGE, low_res_size=low_res_size)
    assert most_together(spec, on_gpu=False) == most
    assert most_together(spec, on_gpu=True) == MOST_PROMPTS


def test_large_float32_encoders_alone_are_fused() -> None:
    assert gains_by_fusion("sam.encoder", "fp32", LARGE)
    assert not gains_by_fusion("sam.decoder", "fp32", LARGE)
    assert not gains_by_fusion("policy.vision", "fp32", LARGE)
    assert not gains_by_fusion("sam.encoder", "fp16", LARGE)
    assert not gains_by_fusion("sam.encoder", "int8", LARGE)
    assert not gains_by_fusion("sam.encoder", "fp32", replace(LARGE, input_size=224))
    assert not gains_by_fusion("sam.encoder", "fp32", replace(LARGE, family="sam2"))
