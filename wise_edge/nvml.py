"""What NVIDIA's management library says of the first GPU: its name, driver and power limit.

Reference: https://docs.nvidia.com/deploy/nvml-api/. On a Jetson it is missing or knows little, by JetPack.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import pynvml

from wise_edge.errors import DeviceError

T = TypeVar("T")


@dataclass(frozen=True)
class GpuFacts:
    """What is known of a GPU; None for what the library does not say.

    Attributes:
        name: the product.
        driver: version of the driver.
        power_limit_w: what the GPU may take.
    """

    name: str | None
    driver: str | None
    power_limit_w: float | None


def read_gpu() -> GpuFacts:
    """Ask for the first GPU; raises `DeviceError` where the library or a GPU is missing."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML says nothing: {error}") from error
    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        limit_mw = _ask(lambda: int(pynvml.nvmlDeviceGetPowerManagementLimit(gpu)))
        return GpuFacts(
            name=_ask(lambda: str(pynvml.nvmlDeviceGetName(gpu))),
            driver=_ask(lambda: str(pynvml.nvmlSystemGetDriverVersion())),
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
        )
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML finds no GPU: {error}") from error
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _ask(question: Callable[[], T]) -> T | None:
    """Return an answer; None where this GPU or user gets none."""
    try:
        return question()
    except pynvml.NVMLError:
        return None
