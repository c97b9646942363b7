"""The part of the CUDA runtime that engines need, through ctypes, so that the device needs no torch.

Reference: https://docs.nvidia.com/cuda/cuda-runtime-api/.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from wise_edge.bundle.devices import Capability
from wise_edge.errors import DeviceError, WiseEdgeError

_VERSIONS = ("13", "12", "11.0")
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost
_NON_BLOCKING = 1  # cudaStreamNonBlocking
_HINT = "is the NVIDIA driver installed?"


class Cuda:
    """The CUDA runtime, on the process's first GPU.

    Args:
        library: path or name of libcudart.

    Raises:
        DeviceError: the library cannot be loaded, or finds no GPU or driver.
    """

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise DeviceError(f"the CUDA runtime cannot be loaded: {error}") from error
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        status = self._library.cudaGetDeviceCount(ctypes.byref(count))
        if status or not count.value:
            reason = self._describe(status) if status else "no device"
            raise DeviceError(f"no NVIDIA GPU can be used ({reason}); {_HINT}")

    @property
    def capability(self) -> Capability:
        """Compute capability of the GPU."""
        values = [ctypes.c_int(), ctypes.c_int()]
        for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True):
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
        return values[0].value, values[1].value

    @property
    def pci_bus_id(self) -> str:
        """PCI bus address of the GPU, in the form that NVML uses too, for example "0000:65:00.0"."""
        name = ctypes.create_string_buffer(32)
        self._call("cudaDeviceGetPCIBusId", name, len(name), 0)
        return name.value.decode()

    @property
    def versions(self) -> tuple[str, str]:
        """Version of the runtime, and the latest version that the driver supports."""
        found = []
        for name in ("cudaRuntimeGetVersion", "cudaDriverGetVersion"):
            value = ctypes.c_int()
            self._call(name, ctypes.byref(value))
            found.append(f"{value.value // 1000}.{value.value % 1000 // 10}")
        return found[0], found[1]

    def memory(self) -> tuple[int, int]:
        """Return the GPU's free and total memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of new memory on the GPU."""
        return self._allocate("cudaMalloc", size)

    def free(self, address: int) -> None:
        """Free memory on the GPU."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def allocate_pinned(self, size: int) -> int:
        """Return the address of `size` bytes of page-locked host memory, which the GPU copies from and to directly."""
        return self._allocate("cudaMallocHost", size)

    def free_pinned(self, address: int) -> None:
        """Free pinned memory."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy of `size` bytes from pinned memory to the GPU."""
        self._copy(target, source, size, _TO_DEVICE, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy of `size` bytes from the GPU to pinned memory."""
        self._copy(target, source, size, _TO_HOST, stream)

    def create_stream(self) -> int:
        """Return a new queue of work, which runs concurrently with others."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """Destroy a queue."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until a queue is empty; raises `WiseEdgeError` if something in it failed."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def _allocate(self, name: str, size: int) -> int:
        address = ctypes.c_void_p()
        self._call(name, ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def _copy(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        places = ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size)
        self._call("cudaMemcpyAsync", *places, kind, ctypes.c_void_p(stream))

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise WiseEdgeError(f"{name} failed: {self._describe(status)}")

    def _describe(self, status: int) -> str:
        return f"{self._library.cudaGetErrorString(status).decode()}, error {status}"


@cache
def open_cuda() -> Cuda:
    """Return the CUDA runtime of this machine; raises `DeviceError` if there is none, or no GPU."""
    reasons = []
    for library in _libraries():
        try:
            return Cuda(library)
        except DeviceError as error:
            reasons.append(str(error))
    # A runtime that loads reports more about what is wrong than a missing one.
    loaded = [reason for reason in reasons if "cannot be loaded" not in reason]
    missing = f"no CUDA runtime (libcudart) was found; {_HINT}"
    raise DeviceError(loaded[0] if loaded else missing)


def find_capability() -> Capability | None:
    """Return the compute capability of this machine's GPU; None without one."""
    try:
        return open_cuda().capability
    except DeviceError:
        return None


def _libraries() -> Iterator[str]:
    """Yield names and paths of libcudart: by the loader, in the toolkit and in NVIDIA's wheels."""
    yield from (f"libcudart.so.{version}" for version in _VERSIONS)
    wheels = (file for entry in sys.path if entry for file in Path(entry, "nvidia").glob("*/lib/libcudart.so.*"))
    for file in (*Path("/usr/local/cuda/lib64").glob("libcudart.so.*"), *wheels):
        yield str(file)
