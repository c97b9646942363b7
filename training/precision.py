"""In which type matrices are multiplied while training on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wise_edge.extras import require

if TYPE_CHECKING:
    from torch import dtype


def product_dtype() -> dtype:
    """Return bfloat16 where the CPU multiplies it (AVX-512 BF16 or AMX), else float32.

    With the instructions bfloat16 was measured at 4 to 9 times the speed of float32, without them at a twentieth.
    """
    torch = require("torch", "train")
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 does not tell
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    chosen: dtype = torch.bfloat16 if fast else torch.float32
    return chosen
