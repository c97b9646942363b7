"""What is picked for which device: the table of docs/setup.md, from headers of the published sizes, and the reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jetson_trees import BOARDS, write_tree
from locations import ROOT
from policies.sparse_models import save_sparse_qwen, save_sparse_sam
from wise_edge import doctor
from wise_edge.doctor import Host
from wise_edge.drawing.units import size
from wise_edge.errors import DeviceError, MissingExtraError, UsageError
from wise_edge.export import targets
from wise_edge.native import llama_library
from wise_edge.planning.setup import Setup, Wishes, plan_setup
from wise_edge.power.nvml import GpuFacts
from wise_edge.runtimes import opening

NAMED = ("orin-nano", "agx-orin", "thor", "rtx-3060", "rtx-4090")
SIZES = ("3b", "7b")


@dataclass(frozen=True)
class FakeCuda:
    """A GPU with so much memory."""

    capability: tuple[int, int]
    free_bytes: int
    versions: tuple[str, str] = ("12.6", "12.6")

    def memory(self) -> tuple[int, int]:
        return self.free_bytes, self.free_bytes


def no_gpu() -> Any:
    raise DeviceError("no NVIDIA GPU can be used (no device); is the NVIDIA driver installed?")


def no_nvml() -> GpuFacts:
    raise DeviceError("NVML says nothing: NVML Shared Library Not Found")


def machine(folder: Path, available_gb: float, gpu: FakeCuda | None = None) -> Host:
    """Return a desktop with so much memory."""
    (folder / "proc").mkdir(parents=True, exist_ok=True)
    memory_kb = int(available_gb * 1e9 / 1024)
    (folder / "proc/meminfo").write_text(f"MemTotal: {memory_kb} kB\nMemAvailable: {memory_kb} kB\n")
    return Host(folder, no_gpu if gpu is None else lambda: gpu, no_nvml, "x86_64")  # type: ignore[arg-type, return-value]


def orin_nano(folder: Path) -> Host:
    """Return an Orin Nano of 8 GB, of which 6.1 GB are available."""
    root = write_tree(folder, BOARDS["orin-nano"])
    return Host(root, lambda: FakeCuda((8, 7), 5_000_000_000), no_nvml, "aarch64")  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in SIZES:
        save_sparse_qwen(folder / name, name)
    save_sparse_sam(folder / "sam_vit_b.safetensors")
    return folder


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TensorRT for RTX be installed here, whatever is; engines are not built."""
    monkeypatch.setattr(targets, "check_packages", lambda *_: None)
    monkeypatch.setattr("wise_edge.export.to_tensorrt.target.check_packages", lambda *_: None)


@pytest.fixture
def llama_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_library, "offloads_to_gpu", lambda: True)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let packages be not installed on this machine."""
    real = doctor.find_spec
    for module in (doctor, opening):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in modules else real(name))


def plan(models: Path, policy: str, host: Host, **wishes: Any) -> Setup:
    return plan_setup(str(models / policy), str(models / "sam_vit_b.safetensors"), Wishes(**wishes), host=host)


def _cell(found: Setup) -> str:
    choice = found.choice
    where = f"{size(choice.gpu_bytes)} GPU memory" if found.device.gpu_bytes else size(choice.all_bytes)
    checked = "" if choice.verify else ", not compared"
    return f"`{choice.backend}`, {choice.weights.name}, {where}{checked}"


def _rows(models: Path, folder: Path) -> Iterator[str]:
    """Yield the rows of the table, one for each device."""
    workstation = machine(folder / "workstation", 64)
    cases = [(name, name, workstation) for name in NAMED]
    laptops = [("this", f"a CPU, {gb} GB available", machine(folder / f"laptop{gb}", gb)) for gb in (6, 14, 30)]
    for device, title, host in (*cases, *laptops):
        cells = []
        for policy in SIZES:
            try:
                cells.append(_cell(plan(models, policy, host, device=device)))
            except DeviceError as error:
                smallest = re.search(r"the smallest is (\S+) (\S+), and it takes (\S+ GB)", str(error))
                assert smallest, error
                cells.append(f"nothing: `{smallest[1]}` {smallest[2]} takes {smallest[3]}")
        name = title if device == "this" else f"`{title}`"
        yield f"| {name} | {' | '.join(cells)} |"


def test_the_documented_picks_are_those_of_the_planner(models: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/setup.md").read_text()
    table = re.search(r"<!-- picks -->\n\n.*?\n.*?\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert table
    assert table[1].splitlines() == list(_rows(models, tmp_path))


def test_a_device_that_is_examined_is_planned_like_one_that_is_named(models: Path, tmp_path: Path) -> None:
    card = FakeCuda((8, 9), 23_400_000_000)
    named = plan(models, "7b", machine(tmp_path / "a", 64), device="rtx-4090")
    here = plan(models, "7b", machine(tmp_path / "b", 64, card))
    assert (here.choice.weights, here.device.kind) == (named.choice.weights, named.device.kind)
    assert here.choice.options.device == "sm89"


def test_a_jetson_that_has_no_room_says_what_takes_it(models: Path, tmp_path: Path, llama_on_gpu: None) -> None:
    with pytest.raises(DeviceError, match=r"smallest is llama-gpu Q4_K_M, and it takes .* a smaller policy or seg"):
        plan(models, "3b", orin_nano(tmp_path))


def test_without_a_package_for_the_gpu_its_command_is_said_and_the_cpu_not_taken(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "tensorrt_edgellm")
    host = machine(tmp_path, 64, FakeCuda((8, 9), 23_400_000_000))
    with pytest.raises(DeviceError, match=r"built for the CPU; .*-DCMAKE_CUDA_ARCHITECTURES=89"):
        plan(models, "3b", host)
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "tensorrt_edgellm", "llama_cpp")
    with pytest.raises(MissingExtraError, match=r"llama_cpp is not installed; run: "):
        plan(models, "3b", host)
    assert plan(models, "3b", host, device="cpu", verify=False).choice.backend == "onnx"


def test_reasons_name_what_each_way_before_lacks(models: Path, tmp_path: Path) -> None:
    host = machine(tmp_path, 64, FakeCuda((8, 6), 11_400_000_000))
    reasons = {each.what: each.reason for each in plan(models, "7b", host).choice.rejected}
    assert reasons == {"tensorrt fp16": "it takes 17.7 GB of GPU memory; 10.3 GB may be used"}


def test_bits_are_obeyed(models: Path, tmp_path: Path) -> None:
    host = machine(tmp_path, 64)
    assert plan(models, "3b", host, bits=4).choice.weights.name == "Q4_K_M"
    assert plan(models, "3b", host, bits=4, device="agx-orin").choice.weights.name == "int4"
    on_cpu = plan(models, "3b", host, bits=16, device="cpu").choice
    assert (on_cpu.backend, on_cpu.weights.name) == ("llama", "F16")


def test_float32_is_no_form_of_fewer_bits(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "llama_cpp")
    host = machine(tmp_path, 64)
    assert plan(models, "3b", host, verify=False).choice.weights.name == "fp32"
    with pytest.raises(MissingExtraError, match="llama_cpp is not installed"):
        plan(models, "3b", host, bits=4)


def test_fewer_pixels_take_less(models: Path, tmp_path: Path) -> None:
    host = machine(tmp_path, 64)
    whole, less = (plan(models, "3b", host, pixels=pixels).choice.all_bytes for pixels in (None, 448**2))
    assert whole - less > 200e6


def test_an_old_card_has_no_engines_and_gets_gguf(models: Path, tmp_path: Path, llama_on_gpu: None) -> None:
    found = plan(models, "3b", machine(tmp_path, 64, FakeCuda((6, 1), 11_000_000_000)))
    assert (found.choice.backend, found.choice.weights.name) == ("llama-gpu", "F16")
    assert "no engine is built for compute capability 6.1" in found.choice.rejected[0].reason


def test_an_unknown_device_is_named_with_those_that_are_known(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device 'orin'; choose one of this, cpu, orin-nano"):
        plan(models, "3b", machine(tmp_path, 64), device="orin")
