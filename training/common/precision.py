"""The type in which a training on a CPU multiplies matrices."""

from __future__ import annotations

from functools import cache
from time import process_time

import torch
from torch import dtype

_SHAPE = (512, 384, 1536)  # rows, inputs and outputs of a typical product of the policy and the sentence encoder
_LEAST_GAIN = 1.5  # below it, the speed is not worth the rounding of bfloat16


def product_dtype(bfloat16: bool) -> dtype:
    """Return bfloat16 if it is wanted and the CPU multiplies it faster than float32, else float32.

    The CPU's flags are no guide: with AVX-512 BF16, bfloat16 ran at 4 to 9 times the speed of float32 on one machine
    and at 0.57 times on another; without it, at a twentieth.
    """
    return torch.bfloat16 if bfloat16 and _is_bfloat16_faster() else torch.float32


@cache
def _is_bfloat16_faster() -> bool:
    """Measure once, in about 50 ms."""
    return _product_s(torch.float32) > _LEAST_GAIN * _product_s(torch.bfloat16)


def _product_s(dtype: dtype) -> float:
    """Return the shortest CPU time of a product in s; CPU time does not include other processes."""
    rows, inputs, outputs = _SHAPE
    left, right = torch.ones(rows, inputs, dtype=dtype), torch.ones(inputs, outputs, dtype=dtype)
    times = []
    for _ in range(10):
        start = process_time()
        torch.matmul(left, right)
        times.append(process_time() - start)
    return min(times)
