"""What NVIDIA's management library reports about the GPU: name, driver, power, energy, temperature and memory.

The library numbers GPUs in an order of its own and lists all of them whatever CUDA_VISIBLE_DEVICES says. If there are
several, this module reads the one that does the work: CUDA's first in this process.

Reference: https://docs.nvidia.com/deploy/nvml-api/. On a Jetson, depending on the JetPack, the library is missing or
reports little.
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
"""How often the GPU's energy counter moves at least, and the time that its power gauge averages over."""


@dataclass(frozen=True)
class GpuFacts:
    """What is known of a GPU; None for what the library does not report.

    Attributes:
        name: the product.
        driver: version of the driver.
        power_limit_w: the most power that the GPU may draw.
    """

    name: str | None
    driver: str | None
    power_limit_w: float | None


@dataclass(frozen=True)
class GpuState:
    """A GPU's state at one moment; None for what the library does not report.

    Attributes:
        clock_hz: clock of its multiprocessors.
        temperature_c: temperature of the chip, degrees Celsius.
        violations_s: for "heat" and "power", how long it throttled the clocks since the driver was loaded.
        memory_bytes: GPU memory that this process uses.
    """

    clock_hz: int | None
    temperature_c: int | None
    violations_s: dict[str, float]
    memory_bytes: int | None


def read_gpu() -> GpuFacts:
    """Return what is known of the GPU.

    Raises:
        DeviceError: the library or the GPU is missing, or it is not known which of several GPUs does the work.
    """
    with _open_gpu() as gpu:
        limit_mw = _ask(lambda: int(pynvml.nvmlDeviceGetPowerManagementLimit(gpu)))
        return GpuFacts(
            name=_ask(lambda: str(pynvml.nvmlDeviceGetName(gpu))),
            driver=_ask(lambda: str(pynvml.nvmlSystemGetDriverVersion())),
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
        )


def read_gpu_state() -> GpuState:
    """Return the GPU's current state.

    Raises:
        DeviceError: as `read_gpu`.
    """
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
    """Open the library and yield the GPU's handle."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML is not available: {error}") from error
    try:
        yield _find_gpu()
    except pynvml.NVMLError as error:
        raise DeviceError(f"NVML finds no GPU: {error}") from error
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _find_gpu() -> Any:
    """Return the handle of the only GPU, or of the one that CUDA uses; raises `DeviceError` if that is not known."""
    if (count := pynvml.nvmlDeviceGetCount()) <= 1:
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    try:
        return pynvml.nvmlDeviceGetHandleByPciBusId(open_cuda().pci_bus_id)
    except (WiseEdgeError, pynvml.NVMLError) as error:
        raise DeviceError(f"there are {count} GPUs, and no CUDA runtime tells which one is used ({error})") from error


def _ask(question: Callable[[], T]) -> T | None:
    """Return an answer of the library; None if it has none for this GPU or user."""
    try:
        return question()
    except pynvml.NVMLError:
        return None


def find_gpu_power() -> list[PowerSource]:
    """Return the GPU's sources of energy and power, the better one first; none without an NVIDIA driver.

    The energy counter (Volta and later) moves every 20 to 100 ms. The power gauge averages over a second from Ampere
    on, and on A100 and H100 samples only a quarter of the time (https://arxiv.org/abs/2312.02741), so it is the second
    choice, and a check on the first. Both measure the GPU with its board, not the machine.

    Raises:
        DeviceError: the GPU reports neither to this user, or it is not known which of several GPUs does the work.
    """
    try:
        pynvml.nvmlInit()
        gpu = _find_gpu()
    except pynvml.NVMLError:
        return []  # otherwise the library stays open, since a source is read until the process ends
    found, failures = [], []
    questions: tuple[tuple[Callable[[Any], int], Kind, str, float], ...] = (
        (pynvml.nvmlDeviceGetTotalEnergyConsumption, "energy", "energy counter of the NVIDIA GPU", COUNTER_S),
        (pynvml.nvmlDeviceGetPowerUsage, "power", "power gauge of the NVIDIA GPU", GAUGE_S),
    )
    for question, kind, name, interval_s in questions:
        read = partial(_read_milli, question, gpu)
        try:
            read()
        except DeviceError as error:
            failures.append(str(error))
            continue
        found.append(PowerSource(name, kind, ("GPU",), (0,), None, interval_s, read, (None,), "gpu"))
    if not found:
        reasons = "; ".join(failures)
        raise DeviceError(f"the GPU reports neither energy nor power ({reasons}); a part of a GPU (MIG) never does")
    return found


def _read_milli(question: Callable[[Any], int], gpu: Any) -> tuple[float]:
    """Return what NVML reports in thousandths (mJ or mW) as J or W."""
    try:
        return (question(gpu) / 1000,)
    except pynvml.NVMLError as error:
        raise DeviceError(f"{question.__name__}: {error}") from error
