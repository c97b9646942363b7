"""What doctor reports on each kind of device, on file systems like theirs, and how to install what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from jetson_trees import BOARDS, write_tree
from wise_edge import doctor
from wise_edge.cli.main import main
from wise_edge.doctor import Finding, Host, examine
from wise_edge.errors import DeviceError
from wise_edge.native.cuda import Cuda
from wise_edge.power.jetson import read_jetson
from wise_edge.power.nvml import GpuFacts
from wise_edge.runtimes import opening


class FakeCuda:
    """A GPU."""

    def __init__(self, major: int, minor: int) -> None:
        self.capability = (major, minor)
        self.versions = ("12.6", "12.6")

    def memory(self) -> tuple[int, int]:
        return 5_000_000_000, 8_000_000_000


def no_gpu() -> Cuda:
    raise DeviceError("no NVIDIA GPU can be used (no device); is the NVIDIA driver installed?")


def gpu(major: int, minor: int) -> Callable[[], Any]:
    return lambda: FakeCuda(major, minor)


def no_nvml() -> GpuFacts:
    raise DeviceError("NVML says nothing: NVML Shared Library Not Found")


def ask(
    root: Path,
    cuda: Callable[[], Any] = no_gpu,
    machine: str = "aarch64",
    nvml: Callable[[], GpuFacts] = no_nvml,
) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(Host(root, cuda, nvml, machine))}


def test_a_driver_that_hangs_does_not_keep_the_rest_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = Event()
    monkeypatch.setattr(doctor, "_LIMIT_S", 0.2)
    monkeypatch.setattr(doctor, "_examine_onnxruntime", lambda *_: Finding("ONNX Runtime", "1.32"))

    def hang() -> Cuda:
        free.wait(60)
        raise DeviceError("late")

    found = ask(tmp_path, hang)
    free.set()
    assert found["GPU"].text is None
    assert found["GPU"].advice == "no answer within 0.2 s: a driver may hang; see dmesg, and reboot"
    assert found["ONNX Runtime"].text == "1.32"
    assert "disk" in found


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let packages be not installed."""
    real = doctor.find_spec
    for module in (doctor, opening):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in modules else real(name))


@pytest.mark.parametrize(
    ("board", "jetpack", "capability", "rails"),
    [
        ("orin-nano", "6.2", (8, 7), ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]),
        ("orin-nx", "6.1", (8, 7), ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]),
        ("agx-orin", "6.0", (8, 7), ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]),
        ("thor", "7.0", (11, 0), ["VIN", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"]),
    ],
)
def test_each_jetson_is_read(
    board: str, jetpack: str, capability: tuple[int, int], rails: list[str], tmp_path: Path
) -> None:
    jetson = read_jetson(write_tree(tmp_path, BOARDS[board], mode=1))
    assert jetson is not None
    assert (jetson.model, jetson.jetpack, jetson.capability) == (BOARDS[board].model, jetpack, capability)
    assert [rail.label for rail in jetson.rails] == rails
    assert jetson.power_mode == BOARDS[board].modes[1]
    assert [clock.name for clock in jetson.clocks] == ["cpu0", "cpu1", BOARDS[board].gpu]
    assert jetson.clocks[0].most_hz == 1_728_000_000
    assert jetson.clocks[2].most_hz == 1_020_000_000
    assert not any(clock.pinned for clock in jetson.clocks)


def test_a_release_that_is_newer_than_the_table_is_known_by_its_major_number(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["thor"])
    (root / "etc/nv_tegra_release").write_text("# R39 (release), REVISION: 9.0, GCID: 1, BOARD: generic\n")
    jetson = read_jetson(root)
    assert jetson is not None
    assert (jetson.l4t, jetson.jetpack) == ("39.9", "7")


@pytest.mark.parametrize("board", BOARDS)
def test_a_jetson_without_packages_is_told_how_to_get_each(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "onnxruntime")
    root = write_tree(tmp_path, BOARDS[board])
    jetson = read_jetson(root)
    assert jetson is not None
    assert jetson.capability is not None
    found = ask(root, gpu(*jetson.capability))
    assert found["board"].text == BOARDS[board].model
    assert found["TensorRT"].text is None
    assert "sudo apt install nvidia-jetpack" in str(found["TensorRT"].advice)
    assert found["ONNX Runtime"].advice == "run: pip install 'wise-edge[onnx]'"
    architecture = "{}{}".format(*jetson.capability)
    assert f"-DCMAKE_CUDA_ARCHITECTURES={architecture}" in str(found["llama.cpp"].advice)
    assert "TensorRT for RTX" not in found  # it does not serve a Jetson
    assert found["clocks"].advice == "they change with load; before measuring, run: sudo jetson_clocks"
    assert found["GPU"].data["target"] == ("thor" if board == "thor" else "orin")
    assert found["memory"].data == {"free_bytes": 6000000 * 1024, "total_bytes": 7802048 * 1024}


def test_pinned_clocks_need_no_advice(tmp_path: Path) -> None:
    found = ask(write_tree(tmp_path, BOARDS["orin-nano"], mode=2, pinned=True), gpu(8, 7))
    assert found["clocks"].advice is None
    assert found["power mode"].text == "MAXN_SUPER of 15W, 25W, MAXN_SUPER"


def test_a_jetson_whose_files_say_little_says_so(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BOARDS["orin-nano"])
    for file in ("var/lib/nvpmodel/status", "sys/class/hwmon/hwmon1/name"):
        (root / file).unlink()
    (root / "etc/nv_tegra_release").write_text("# R35 (release), REVISION: 4.1, GCID: 1\n")
    found = ask(root)
    assert found["power mode"].text is None
    assert "sudo nvpmodel -q" in str(found["power mode"].advice)
    assert "energy cannot be measured" in str(found["power rails"].advice)
    assert found["release"].advice == "update to JetPack 6 or 7.2"
    assert "sudo apt install nvidia-jetpack" in str(found["GPU"].advice)


def test_a_desktop_with_a_gpu_is_told_of_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    driver = tmp_path / "proc/driver/nvidia/version"
    driver.parent.mkdir(parents=True)
    driver.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05\nGCC version:\n")
    assert "580.95.05" in str(ask(tmp_path, gpu(8, 9), "x86_64")["driver"].text)
    facts = GpuFacts("NVIDIA GeForce RTX 4090", "580.95.05", 450.0)
    found = ask(tmp_path, gpu(8, 9), "x86_64", lambda: facts)
    assert found["driver"].text == "580.95.05"
    assert str(found["GPU"].text).startswith("NVIDIA GeForce RTX 4090, compute capability 8.9 (sm89: ")
    assert str(found["GPU"].text).endswith(", up to 450 W")
    assert found["GPU"].data["compute_capability"] == "8.9"
    assert found["GPU"].data["power_limit_w"] == 450.0
    assert found["TensorRT for RTX"].advice == "run: pip install 'wise-edge[rtx]'"
    assert "TensorRT" not in found
    assert "pip install 'wise-edge[gpu]'" in str(found["ONNX Runtime"].advice)  # the tests have the CPU's
    assert "power rails" not in found


@pytest.mark.parametrize("board", BOARDS)
def test_a_jetson_is_told_that_onnxruntime_cannot_use_its_gpu(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path, BOARDS[board])
    jetson = read_jetson(root)
    assert jetson is not None
    assert jetson.capability is not None
    found = ask(root, gpu(*jetson.capability))["ONNX Runtime"]
    assert str(found.advice).startswith(
        "on the CPU only: no wheel of onnxruntime-gpu holds code for a Jetson; use llama"
    )
    monkeypatch.setattr(doctor, "find_gpu_lack", lambda capability: f"none for {capability}")
    assert ask(root, gpu(*jetson.capability))["ONNX Runtime"].advice == f"none for {jetson.capability}"


@pytest.mark.parametrize(
    ("board", "version", "advice"),
    [
        ("thor", "10.13.3.9", "users report wrong results of it on Thor"),
        ("thor", "10.16.2.10", None),
        ("orin-nano", "10.13.3.9", None),
        ("orin-nano", "11.4.0.106", "it does not support a Jetson; run: pip uninstall -y tensorrt"),
        ("thor", "11.2.1.2", "it does not support a Jetson; run: pip uninstall -y tensorrt"),
        ("thor", "11.4.1.5", None),
    ],
)
def test_a_tensorrt_that_fails_on_a_jetson_is_known(
    board: str, version: str, advice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"tensorrt": version}
    monkeypatch.setattr(doctor, "_import_version", lambda name: (versions.get(name), None))
    found = ask(write_tree(tmp_path, BOARDS[board]), gpu(*((11, 0) if board == "thor" else (8, 7))))["TensorRT"]
    assert (found.text, str(found.advice).partition(", ")[0] if advice else found.advice) == (version, advice)


def test_a_data_center_gpu_is_served_by_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    assert ask(tmp_path, gpu(9, 0), "x86_64")["TensorRT"].advice == "run: pip install 'wise-edge[tensorrt]'"
    assert ask(tmp_path, gpu(9, 0), "aarch64")["TensorRT"].advice == "run: pip install tensorrt"
    old = ask(tmp_path, gpu(6, 1), "x86_64")
    assert old["GPU"].advice == "no engines are built for it; use GGUF or ONNX bundles"


def test_a_machine_without_a_gpu_is_told_why_and_of_nothing_that_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    found = ask(tmp_path, no_gpu, "x86_64")
    assert found["GPU"].text is None
    assert str(found["GPU"].advice).startswith("no NVIDIA GPU can be used")
    assert not {"TensorRT", "TensorRT for RTX", "CUDA"} & found.keys()
    assert found["ONNX Runtime"].advice is None
    assert "CPUExecutionProvider" in found["ONNX Runtime"].data["providers"]


def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    real = doctor.import_module
    monkeypatch.setattr(doctor, "import_module", lambda name: fail(name) if name == "tensorrt" else real(name))
    found = ask(tmp_path, gpu(9, 0), "x86_64")
    assert found["TensorRT"].advice == (
        "it is installed but cannot be imported: libnvinfer.so.10: cannot open shared object file"
    )


def test_backends_are_listed_with_what_each_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "tensorrt_edgellm", "torch")
    bare = ask(tmp_path, no_gpu, "x86_64")
    assert bare["policy backends"].text == (
        "onnx, llama; not tensorrt (TensorRT needs an NVIDIA GPU), edgellm (TensorRT Edge-LLM needs an NVIDIA GPU), "
        "onnx-cuda (this onnxruntime has no CUDA), llama-gpu (this llama-cpp-python was built for the CPU), "
        "torch (torch is not installed)"
    )
    assert bare["mask backends"].data["available"] == ["onnx"]
    assert bare["mask backends"].data["lacking"]["torch"].endswith("run: pip install 'wise-edge[export]'")

    lacking = ask(tmp_path, gpu(8, 9), "x86_64")["policy backends"].data["lacking"]
    assert "tensorrt_rtx is not installed" in lacking["tensorrt"]
    assert "tensorrt_edgellm is not installed" in lacking["edgellm"]


def test_a_gpu_that_no_engine_is_built_for_leaves_the_other_backends(tmp_path: Path) -> None:
    found = ask(tmp_path, gpu(6, 1), "x86_64")["policy backends"]
    assert "no engine is built for compute capability 6.1" in found.data["lacking"]["tensorrt"]
    assert "onnx" in found.data["available"]


def test_the_command_prints_findings_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "llama-cpp-python" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"name", "text", "advice", "data"} == set(document[0])
