"""What NVML reports about a GPU, through its real ctypes interface and a fake of NVIDIA's library."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from locations import SUPPORT
from wise_edge.errors import DeviceError
from wise_edge.native.cuda import Cuda
from wise_edge.power import nvml
from wise_edge.power.nvml import GpuFacts, GpuState, find_gpu_power, read_gpu, read_gpu_state


def compile_library(source: str, target: Path) -> Path:
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread"]
    subprocess.run(["cc", *options, "-o", target, SUPPORT / source], check=True)
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_library("fake_nvml.c", tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1")))


@pytest.fixture
def answer(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the answers of the library."""
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    def set_all(**values: int) -> None:
        plain = {"init": 0, "devices": 1, "limit_status": 0, "energy_status": 0, "power_status": 0}
        plain |= {"state_status": 0, "own_pid": 0}
        for name, value in (plain | values).items():
            ctypes.c_int.in_dll(library, f"fake_{name}").value = value

    set_all()
    return set_all


def _sessions(library: ctypes.CDLL) -> int:
    return ctypes.c_int.in_dll(library, "fake_sessions").value


def test_name_driver_and_power_limit(answer: Callable[..., None], library: ctypes.CDLL) -> None:
    assert read_gpu() == GpuFacts("NVIDIA GeForce RTX 4090", "580.95.05", 450.0)
    assert _sessions(library) == 0


def test_clock_heat_throttling_and_memory(answer: Callable[..., None], library: ctypes.CDLL) -> None:
    answer(own_pid=os.getpid())
    assert read_gpu_state() == GpuState(2520_000_000, 61, {"heat": 0.25, "power": 4.0}, 1_234_567_890)
    answer(own_pid=1, state_status=pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert read_gpu_state() == GpuState(None, None, {}, None)
    assert _sessions(library) == 0


@pytest.mark.parametrize("status", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_what_it_does_not_report_is_none(answer: Callable[..., None], status: int) -> None:
    answer(limit_status=status)
    assert read_gpu() == GpuFacts("NVIDIA GeForce RTX 4090", "580.95.05", None)


def test_a_driver_that_is_not_loaded_and_a_machine_without_a_gpu(
    answer: Callable[..., None], library: ctypes.CDLL
) -> None:
    answer(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    with pytest.raises(DeviceError, match="NVML is not available: Driver Not Loaded"):
        read_gpu()
    answer(devices=0)
    with pytest.raises(DeviceError, match="NVML finds no GPU: Not Found"):
        read_gpu()
    assert _sessions(library) == 0


def test_a_machine_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", missing)
    with pytest.raises(DeviceError, match="NVML is not available: NVML Shared Library Not Found"):
        read_gpu()


def test_energy_is_read_from_the_counter_in_joules(answer: Callable[..., None], library: ctypes.CDLL) -> None:
    source = find_gpu_power()[0]

    assert (source.name, source.kind, source.parts) == ("energy counter of the NVIDIA GPU", "energy", ("GPU",))
    assert source.read() == (5000000123.456,)
    ctypes.c_ulonglong.in_dll(library, "fake_energy_mj").value += 2500
    assert source.read() == (5000000125.956,)
    assert source.interval_s == 0.1


def test_without_a_counter_the_gauge_is_read(answer: Callable[..., None]) -> None:
    assert [source.kind for source in find_gpu_power()] == ["energy", "power"]
    answer(energy_status=pynvml.NVML_ERROR_NOT_SUPPORTED)
    (source,) = find_gpu_power()

    assert (source.kind, source.read(), source.interval_s) == ("power", (85.5,), 1.0)


def test_a_part_of_a_gpu_and_a_user_without_rights_get_the_reason(answer: Callable[..., None]) -> None:
    answer(energy_status=pynvml.NVML_ERROR_NOT_SUPPORTED, power_status=pynvml.NVML_ERROR_NO_PERMISSION)
    with pytest.raises(DeviceError, match=r"neither energy nor power.*GetTotalEnergyConsumption.*GetPowerUsage.*MIG"):
        find_gpu_power()


def test_a_lost_source_raises(answer: Callable[..., None]) -> None:
    source = find_gpu_power()[0]
    answer(energy_status=pynvml.NVML_ERROR_NOT_SUPPORTED)
    with pytest.raises(DeviceError, match="nvmlDeviceGetTotalEnergyConsumption"):
        source.read()


def test_a_machine_without_a_driver_has_no_source(answer: Callable[..., None]) -> None:
    answer(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert find_gpu_power() == []
    answer(devices=0)
    assert find_gpu_power() == []


def test_of_several_gpus_the_one_that_cuda_uses_is_read(
    answer: Callable[..., None], library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cudart = Cuda(str(compile_library("fake_cudart.c", tmp_path / "libcudart.so")))
    monkeypatch.setattr(nvml, "open_cuda", lambda: cudart)
    first_mj = ctypes.c_ulonglong.in_dll(library, "fake_energy_mj").value
    answer(devices=2)

    assert find_gpu_power()[0].read() == (first_mj / 1e3 + 1.0,)  # the second by NVML's order, the first by CUDA's
    assert read_gpu().name == "NVIDIA GeForce RTX 4090"
    answer(devices=1)
    monkeypatch.setattr(nvml, "open_cuda", None)  # CUDA is not asked about a single GPU
    assert find_gpu_power()[0].read() == (first_mj / 1e3,)


def test_of_several_gpus_none_is_guessed(
    answer: Callable[..., None], library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Cuda:
        raise DeviceError("no CUDA runtime (libcudart) was found")

    monkeypatch.setattr(nvml, "open_cuda", refuse)
    answer(devices=2)
    for read in (read_gpu, read_gpu_state, find_gpu_power):
        with pytest.raises(DeviceError, match=r"^there are 2 GPUs, .* which one is used \(no CUDA"):
            read()
