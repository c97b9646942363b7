"""For which GPUs a shared library holds code, read from its file without loading it.

CUDA's compiler puts a section `.nv_fatbin` of containers into a library, each of entries: machine code for one compute
capability, which later ones of the same major number run too, or PTX, which the driver translates for any later one.
`cuobjdump --list-elf` (CUDA 13) finds the same in the libraries of onnxruntime-gpu 1.31.1 and bitsandbytes 0.50.2.
Reference: https://docs.nvidia.com/cuda/cuda-compiler-driver-nvcc/#gpu-compilation.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wise_edge.bundle.devices import Capability

_MAGIC = 0xBA55ED50
_PTX, _MACHINE_CODE = 1, 2
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries
_ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, bytes of this header, bytes of the code, ..., capability × 10


@dataclass(frozen=True, order=True)
class GpuCode:
    """Code in a library.

    Attributes:
        capability: the compute capability that it was compiled for.
        portable: whether it is PTX.
    """

    capability: Capability
    portable: bool = False

    def runs_on(self, gpu: Capability) -> bool:
        """Whether a GPU of a compute capability can run it."""
        return self.capability <= gpu and (self.portable or self.capability[0] == gpu[0])


def list_gpu_code(library: Path) -> tuple[GpuCode, ...]:
    """Return what a library holds, each once; nothing if it is no 64-bit ELF library or holds no GPU code.

    Raises:
        OSError: it cannot be read.
    """
    with library.open("rb") as file:
        if library.stat().st_size < 64:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return tuple(sorted({code for start, end in _sections(data) for code in _codes(data, start, end)}))
            except (struct.error, IndexError, ValueError):  # cut off
                return ()


def _sections(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield start and end of each section `.nv_fatbin` (https://refspecs.linuxfoundation.org/elf/elf.pdf)."""
    if data[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<I20xQQ", data, table + index * size) for index in range(count)]
    for name, start, length in headers:
        if data[headers[names][1] + name : headers[names][1] + name + 11] == b".nv_fatbin\0":
            yield start, start + length


def _codes(data: mmap.mmap, start: int, end: int) -> Iterator[GpuCode]:
    while start + _CONTAINER.size <= end:
        magic, _, header, length = _CONTAINER.unpack_from(data, start)
        if magic != _MAGIC:
            start += 8  # padding
            continue
        entry, start = start + header, start + header + length
        while entry + _ENTRY.size <= start:
            kind, _, header, length, number = _ENTRY.unpack_from(data, entry)
            if header < _ENTRY.size:
                break
            if kind in (_PTX, _MACHINE_CODE):
                yield GpuCode((number // 10, number % 10), kind == _PTX)
            entry += header + length
