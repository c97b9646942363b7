"""GPU memory that is allocated once and reused, and arrays that stay on the GPU between runs."""

from __future__ import annotations

import ctypes
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.native.cuda import Cuda

_LEAST_BLOCK = 256  # bytes; CUDA aligns to as much


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in GPU memory; its memory is reused when the array is garbage-collected.

    Attributes:
        address: of its first byte.
        shape: size along each axis.
        dtype: its type.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class DevicePool:
    """Blocks of GPU memory for the work of one stream, in sizes of powers of two.

    A block may be reused while work on it still waits in the stream, because later work of the same stream runs after
    it. A pool therefore belongs to one stream.

    Args:
        cuda: the CUDA runtime.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._free: dict[int, list[int]] = defaultdict(list)
        self._all: list[int] = []
        weakref.finalize(
            self, _free_blocks, cuda.free, self._all
        ).atexit = False  # the driver frees what a process leaves

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return an array of undefined content."""
        kind = np.dtype(dtype)
        size = _block_size(int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
        if self._free[size]:
            address = self._free[size].pop()
        else:
            address = self._cuda.allocate(size)
            self._all.append(address)
        array = DeviceArray(address, shape, kind)
        weakref.finalize(array, self._free[size].append, address).atexit = False
        return array


class PinnedBuffer:
    """Pinned host memory, which the GPU copies from and to directly; it grows on demand.

    Args:
        cuda: the CUDA runtime.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._size = 0
        self._held: list[int] = []
        weakref.finalize(self, _free_blocks, cuda.free_pinned, self._held).atexit = False

    def view(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return its beginning as an array; the content of the previous array is lost."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if count * kind.itemsize > self._size or not self._held:
            _free_blocks(self._cuda.free_pinned, self._held)
            self._size = _block_size(count * kind.itemsize)
            self._held.append(self._cuda.allocate_pinned(self._size))
        buffer = memoryview((ctypes.c_ubyte * self._size).from_address(self._held[0])).cast("B")
        array: npt.NDArray[Any] = np.frombuffer(buffer, kind, count)
        return array.reshape(shape)


def _block_size(size: int) -> int:
    return max(_LEAST_BLOCK, 1 << (size - 1).bit_length() if size else 0)


def _free_blocks(free: Any, blocks: list[int]) -> None:
    while blocks:
        free(blocks.pop())
