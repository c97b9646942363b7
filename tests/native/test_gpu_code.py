"""GPU code in libraries: what a file holds, which GPUs run it, and which backend is rejected for want of it."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from wise_edge.errors import DeviceError
from wise_edge.native import onnxruntime_session
from wise_edge.native.gpu_code import GpuCode, list_gpu_code
from wise_edge.native.onnxruntime_session import find_gpu_lack
from wise_edge.runtimes.backends import BACKENDS
from wise_edge.runtimes.dispatch import DeviceCapabilities, check_device
from wise_edge.runtimes.opening import find_capabilities

MACHINE_CODE, PTX = 2, 1
AARCH64 = ((8, 9), (9, 0), (12, 0), (12, 1))
"""What the aarch64 wheel of onnxruntime-gpu 1.31.1 holds."""


def _entry(kind: int, number: int) -> bytes:
    return struct.pack("<HHIQ12xI32x", kind, 0x101, 64, 24, number) + bytes(24)


def write_library(file: Path, *containers: tuple[tuple[int, int], ...]) -> Path:
    """Write a 64-bit ELF file whose second section holds containers of (kind, capability without the dot)."""
    code = b""
    for entries in containers:
        body = b"".join(_entry(*entry) for entry in entries)
        code += struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body + bytes(8)
    names = b"\0.nv_fatbin\0.shstrtab\0"
    table = 64 + len(code) + len(names)
    header = b"\x7fELF\x02\x01\x01" + bytes(33) + struct.pack("<Q", table) + bytes(10) + struct.pack("<HHH", 64, 3, 2)
    sections = ((0, 0, 0), (1, 64, len(code)), (12, 64 + len(code), len(names)))
    rows = b"".join(struct.pack("<I20xQQ24x", name, start, size) for name, start, size in sections)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(header + code + names + rows)
    return file


def test_every_container_and_entry_is_read_once(tmp_path: Path) -> None:
    library = write_library(
        tmp_path / "library.so", ((MACHINE_CODE, 87), (MACHINE_CODE, 120)), ((PTX, 90), (7, 75), (MACHINE_CODE, 87))
    )
    assert list_gpu_code(library) == (GpuCode((8, 7)), GpuCode((9, 0), portable=True), GpuCode((12, 0)))


@pytest.mark.parametrize("content", [b"", b"no library at all" * 9, b"\x7fELF\x02\x01" + bytes(80)])
def test_other_files_hold_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert list_gpu_code(tmp_path / "file") == ()


def test_a_cut_off_library_holds_none(tmp_path: Path) -> None:
    library = write_library(tmp_path / "library.so", ((MACHINE_CODE, 87),))
    library.write_bytes(library.read_bytes()[:-100])
    assert list_gpu_code(library) == ()


def test_a_real_library_is_read() -> None:
    package = Path(pytest.importorskip("bitsandbytes").__file__ or "").parent
    found = {one.capability for file in package.glob("libbitsandbytes_cuda1*.so") for one in list_gpu_code(file)}
    assert {(8, 0), (8, 6), (8, 9), (9, 0)} <= found  # cuobjdump lists these of 0.50.2
    assert (8, 7) not in found


@pytest.mark.parametrize(
    ("code", "gpu", "runs"),
    [
        (GpuCode((8, 6)), (8, 7), True),
        (GpuCode((8, 9)), (8, 7), False),
        (GpuCode((9, 0)), (10, 0), False),
        (GpuCode((9, 0), portable=True), (10, 0), True),
        (GpuCode((9, 0), portable=True), (8, 9), False),
    ],
)
def test_a_gpu_runs_code_of_its_generation_and_older_ptx(code: GpuCode, gpu: tuple[int, int], runs: bool) -> None:
    assert code.runs_on(gpu) == runs


def pretend_to_hold(monkeypatch: pytest.MonkeyPatch, folder: Path, *capabilities: tuple[int, int]) -> None:
    """Let onnxruntime be one that holds code for GPUs."""
    entries = tuple((MACHINE_CODE, 10 * major + minor) for major, minor in capabilities)
    write_library(folder / "capi/libonnxruntime_providers_cuda.so", entries)
    fake = SimpleNamespace(
        __file__=str(folder / "__init__.py"), get_available_providers=lambda: [onnxruntime_session.CUDA]
    )
    monkeypatch.setattr(onnxruntime_session, "require", lambda *_: fake)


@pytest.mark.parametrize(("gpu", "runs"), [((8, 7), False), ((11, 0), False), ((9, 0), True), ((12, 1), True)])
def test_onnxruntime_is_rejected_on_a_gpu_for_which_it_holds_no_code(
    gpu: tuple[int, int], runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_hold(monkeypatch, tmp_path, *AARCH64)
    backend = next(row for row in BACKENDS if row.name == "onnx-cuda")
    device = DeviceCapabilities(("onnxruntime",), ("onnx-cuda",), gpu)
    if runs:
        check_device(backend, device, "mask")
    else:
        number = "{}.{}".format(*gpu)
        with pytest.raises(
            DeviceError, match=rf"capability 8\.9, 9\.0, 12\.0, 12\.1, none for {number}; use llama\.cpp"
        ):
            check_device(backend, device, "mask")


def test_a_capability_is_named_once_if_there_is_ptx_for_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_hold(monkeypatch, tmp_path, (9, 0))
    write_library(
        tmp_path / "capi/libonnxruntime_providers_cuda.so", ((MACHINE_CODE, 80), (MACHINE_CODE, 90), (PTX, 90))
    )
    assert "capability 8.0, 9.0, none for 7.5" in (find_gpu_lack((7, 5)) or "")


def test_nothing_is_claimed_of_a_package_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(onnxruntime_session, "require", lambda *_: fake)
    assert find_gpu_lack((8, 7)) is None


def test_the_gpu_is_asked_for_if_a_build_for_cuda_is_installed() -> None:
    row = next(row for row in BACKENDS if row.name == "onnx-cuda")
    for fits, gpu in ((False, None), (True, (8, 7))):
        found = find_capabilities([dataclasses.replace(row, build_fits=lambda fits=fits: fits)], lambda: (8, 7))
        assert found.gpu == gpu
