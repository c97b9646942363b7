"""What NVIDIA's management library says of the first GPU: its name, driver, power limit, energy and power.

Reference: https://docs.nvidia.com/deploy/nvml-api/. On a Jetson it is missing or knows little, by JetPack.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pynvml

from wise_edge.errors import DeviceError
from wise_edge.power import Kind, PowerSource

T = TypeVar("T")
COUNTER_S, GAUGE_S = 0.1, 1.0
"""How long the GPU's counter of energy stands still at most, and what its gauge of power averages over."""


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


def find_gpu_power() -> PowerSource | None:
    """Return what the first GPU tells of its energy, or else of its power; None where there is no NVIDIA driver.

    The counter of energy (Volta and later) moves every 20 to 100 ms. The gauge of power gives the mean of a second from
    Ampere on, and on A100 and H100 of a quarter of the time only (https://arxiv.org/abs/2312.02741), so that it is the
    second choice. Either is of the GPU alone, its board included, not of the machine.

    Raises:
        DeviceError: there is a GPU that tells neither to this user.
    """
    try:
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None  # the library stays open otherwise: a source is read until the process ends
    refusals = []
    questions: tuple[tuple[Callable[[Any], int], Kind, str, float], ...] = (
        (pynvml.nvmlDeviceGetTotalEnergyConsumption, "energy", "energy counter of the NVIDIA GPU", COUNTER_S),
        (pynvml.nvmlDeviceGetPowerUsage, "power", "power gauge of the NVIDIA GPU", GAUGE_S),
    )
    for question, kind, name, interval_s in questions:
        read = partial(_read_milli, question, gpu)
        try:
            read()
        except DeviceError as error:
            refusals.append(str(error))
            continue
        return PowerSource(name, kind, ("GPU",), (0,), None, interval_s, read, (None,))
    raise DeviceError(f"the GPU tells neither energy nor power ({'; '.join(refusals)}); a part of one (MIG) never does")


def _read_milli(question: Callable[[Any], int], gpu: Any) -> tuple[float]:
    """Return what NVML answers in thousandths."""
    try:
        return (question(gpu) / 1000,)
    except pynvml.NVMLError as error:
        raise DeviceError(f"{question.__name__}: {error}") from error
