"""What NVIDIA's management library says of the GPU: name, driver, power limit, energy, power, heat and memory.

The library numbers GPUs in an order of its own, and knows all of them whatever CUDA_VISIBLE_DEVICES says. Where there
are several, the one that is meant is CUDA's first in this process, which works.

Reference: https://docs.nvidia.com/deploy/nvml-api/. On a Jetson it is missing or knows little, by JetPack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pynvml

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.native.cuda import open_cuda
from wise_edge.power.sources import Kind, PowerSource

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


@dataclass(frozen=True)
class GpuState:
    """How a GPU is at one moment; None for what the library does not say.

    Attributes:
        clock_hz: of its multiprocessors.
        temperature_c: of the chip.
        violations_s: what held its clocks down, "heat" or "power", to how long it did since the driver was loaded.
        memory_bytes: what this process has of its memory.
    """

    clock_hz: int | None
    temperature_c: int | None
    violations_s: dict[str, float]
    memory_bytes: int | None


def read_gpu() -> GpuFacts:
    """Ask for the GPU; raises `DeviceError` where library or GPU is missing, or which of several works is not known."""
    with _open_gpu() as gpu:
        limit_mw = _ask(lambda: int(pynvml.nvmlDeviceGetPowerManagementLimit(gpu)))
        return GpuFacts(
            name=_ask(lambda: str(pynvml.nvmlDeviceGetName(gpu))),
            driver=_ask(lambda: str(pynvml.nvmlSystemGetDriverVersion())),
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
        )


def read_gpu_state() -> GpuState:
    """Ask how the GPU is; raises `DeviceError` as `read_gpu`."""
    policies = {"heat": pynvml.NVML_PERF_POLICY_THERMAL, "power": pynvml.NVML_PERF_POLICY_POWER}
    with _open_gpu() as gpu:
        clock_mhz = _ask(lambda: int(pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM)))
        held_ns = {
            why: _ask(
                partial(lambda policy: int(pynvml.nvmlDeviceGetViolationStatus(gpu, policy).violationTime), policy)
            )
            for why, policy in policies.items()
        }
        processes = _ask(lambda: list(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))) or []
        return GpuState(
            clock_hz=None if clock_mhz is None else clock_mhz * 1_000_000,
            temperature_c=_ask(lambda: int(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU))),
            violations_s={why: ns / 1e9 for why, ns in held_ns.items() if ns is not None},
            memory_bytes=next((process.usedGpuMemory for process in processes if process.pid == os.getpid()), None),
        )


@contextmanager
def _open_gpu() -> Iterator[Any]:
    """Open the library and give the GPU's handle."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML says nothing: {error}") from error
    try:
        yield _find_gpu()
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML finds no GPU: {error}") from error
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _find_gpu() -> Any:
    """Return the handle of the only GPU, or of the one that works; raises `DeviceError` where that is not known."""
    if (count := pynvml.nvmlDeviceGetCount()) <= 1:
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    try:
        return pynvml.nvmlDeviceGetHandleByPciBusId(open_cuda().pci_bus_id)
    except (WiseEdgeError, pynvml.NVMLError) as error:
        raise DeviceError(f"{count} GPUs, and no CUDA runtime that says which of them works ({error})") from error


def _ask(question: Callable[[], T]) -> T | None:
    """Return an answer; None where this GPU or user gets none."""
    try:
        return question()
    except pynvml.NVMLError:
        return None


def find_gpu_power() -> list[PowerSource]:
    """Return what the GPU tells of its energy and its power, the better first; none without an NVIDIA driver.

    The counter of energy (Volta and later) moves every 20 to 100 ms. The gauge of power gives the mean of a second from
    Ampere on, and on A100 and H100 of a quarter of the time only (https://arxiv.org/abs/2312.02741), so that it is the
    second choice, and a check where there is the first. Either is of the GPU alone, its board included, not of the
    machine.

    Raises:
        DeviceError: there is a GPU that tells neither to this user, or none of several is known to work.
    """
    try:
        pynvml.nvmlInit()
        gpu = _find_gpu()
    except pynvml.NVMLError:
        return []  # the library stays open otherwise: a source is read until the process ends
    found, refusals = [], []
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
        found.append(PowerSource(name, kind, ("GPU",), (0,), None, interval_s, read, (None,), "gpu"))
    if not found:
        told = "; ".join(refusals)
        raise DeviceError(f"the GPU tells neither energy nor power ({told}); a part of one (MIG) never does")
    return found


def _read_milli(question: Callable[[Any], int], gpu: Any) -> tuple[float]:
    """Return what NVML answers in thousandths."""
    try:
        return (question(gpu) / 1000,)
    except pynvml.NVMLError as error:
        raise DeviceError(f"{question.__name__}: {error}") from error
