"""What this device has and lacks for running bundles, each lack with the command that fixes it here."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from wise_edge.bundle.devices import TENSORRT, TENSORRT_RTX, Capability, GpuKind, find_gpu_kind, format_capability
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.drawing.units import size
from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.native.cuda import Cuda, open_cuda
from wise_edge.native.llama_library import TESTED_VERSIONS, offloads_to_gpu
from wise_edge.native.onnxruntime_session import CUDA, OnnxSession, find_gpu_lack
from wise_edge.power.jetson import Jetson, read_jetson
from wise_edge.power.nvml import GpuFacts, read_gpu
from wise_edge.power.sysfs import ROOT
from wise_edge.runtimes import backends
from wise_edge.runtimes.dispatch import check_device
from wise_edge.runtimes.opening import find_capabilities

T = TypeVar("T")
_LIMIT_S = 60.0
"""Time for one examination; importing a package from a slow card takes a while."""
_LLAMA = f"llama-cpp-python=={TESTED_VERSIONS[-1]}"


@dataclass(frozen=True)
class Finding:
    """One thing about the device.

    Attributes:
        name: its subject.
        text: what was found; None if nothing was.
        advice: what to do about it; None if nothing has to be done.
        data: the same for programs, ready for JSON, with units in the names.
    """

    name: str
    text: str | None
    advice: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """Where findings come from, so that tests can replace it.

    Attributes:
        root: the root of the file system.
        cuda: returns the CUDA runtime, or raises `DeviceError`.
        gpu: returns what NVML reports, or raises `DeviceError`.
        machine: the processor's architecture.
    """

    root: Path = ROOT
    cuda: Callable[[], Cuda] = open_cuda
    gpu: Callable[[], GpuFacts] = read_gpu
    machine: str = platform.machine()


def examine(host: Host | None = None) -> list[Finding]:
    """Find out what this device has and lacks.

    Args:
        host: where to look; None examines this machine.
    """
    host = host or Host()
    jetson = read_jetson(host.root)
    known = jetson.capability if jetson else None
    capability, gpu = _within("GPU", lambda: _examine_gpu(host, jetson), lambda late: (known, [late]))
    target = _target(capability)
    return [
        Finding("board", jetson.model if jetson else f"{host.machine}, {os.cpu_count()} processors"),
        *_examine_jetson(jetson),
        *gpu,
        *_examine_memory(host.root),
        *_examine_tensorrt(host.machine, jetson, target),
        _within("ONNX Runtime", lambda: _examine_onnxruntime(target, capability), _same),
        _within("llama.cpp", lambda: _examine_llama(capability), _same),
        *_examine_backends(capability),
    ]


def _within(name: str, work: Callable[[], T], instead: Callable[[Finding], T]) -> T:
    """Return what work in a thread returns, or that it has not ended: a call into a broken driver may never return."""
    done = Future[T]()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # raised where it is awaited
            done.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    if wait((done,), _LIMIT_S).done:
        return done.result()
    return instead(Finding(name, None, f"no answer within {_LIMIT_S:g} s: a driver may hang; see dmesg, and reboot"))


def _same(finding: Finding) -> Finding:
    return finding


def _target(capability: Capability | None) -> GpuKind | None:
    try:
        return None if capability is None else find_gpu_kind(capability)
    except DeviceError:
        return None


def _examine_jetson(jetson: Jetson | None) -> Iterator[Finding]:
    if jetson is None:
        return
    jetpack = f"JetPack {jetson.jetpack}" if jetson.jetpack else "JetPack unknown"
    target = _target(jetson.capability)
    old = jetson.jetpack is not None and int(jetson.jetpack.split(".")[0]) < 6
    yield Finding(
        "release",
        f"{jetpack}, L4T {jetson.l4t}",
        f"update to JetPack {target.jetpack if target else '6 or later'}" if old else None,
        {"jetpack": jetson.jetpack, "l4t": jetson.l4t},
    )
    rails = [rail.label for rail in jetson.rails]
    yield Finding(
        "power rails",
        ", ".join(rails) or None,
        None if rails else "no INA3221 or INA238 is listed in /sys/class/hwmon: energy cannot be measured",
        {"rails": rails},
    )
    yield Finding(
        "power mode",
        f"{jetson.power_mode} of {', '.join(jetson.power_modes)}" if jetson.power_mode else None,
        None if jetson.power_mode else "the power mode is unknown; ask for it with: sudo nvpmodel -q",
        {"mode": jetson.power_mode, "modes": list(jetson.power_modes)},
    )
    loose = any(not clock.pinned for clock in jetson.clocks)
    yield Finding(
        "clocks",
        ", ".join(f"{c.name} {c.now_hz / 1e6:.0f} of {c.most_hz / 1e6:.0f} MHz" for c in jetson.clocks) or None,
        "they change with load; before measuring, run: sudo jetson_clocks" if loose else None,
        {"clocks": [asdict(clock) for clock in jetson.clocks], "pinned": not loose},
    )


def _examine_gpu(host: Host, jetson: Jetson | None) -> tuple[Capability | None, list[Finding]]:
    """Return the GPU's compute capability, and findings about the GPU, its driver and CUDA."""
    facts = _facts(host)
    driver = [Finding("driver", facts.driver, data={"version": facts.driver})] if facts.driver else []
    try:
        cuda = host.cuda()
        capability = cuda.capability
    except WiseEdgeError as error:
        advice = "reinstall it: sudo apt install nvidia-jetpack" if jetson else None
        known = jetson.capability if jetson else None
        return known, [*driver, Finding("GPU", facts.name, f"{error}{f'; {advice}' if advice else ''}")]
    free, total = cuda.memory()
    runtime, of_driver = cuda.versions
    number, target = format_capability(capability), _target(capability)
    parts = [
        facts.name,
        f"compute capability {number}{f' ({target.name}: {target.description})' if target else ''}",
        f"up to {facts.power_limit_w:.0f} W" if facts.power_limit_w else None,
    ]
    return capability, [
        *driver,
        Finding(
            "GPU",
            ", ".join(filter(None, parts)),
            None if target else "no engines are built for it; use GGUF or ONNX bundles",
            {
                "name": facts.name,
                "compute_capability": number,
                "target": target.name if target else None,
                "power_limit_w": facts.power_limit_w,
            },
        ),
        _room("GPU memory", "free", free, total),
        Finding("CUDA", f"runtime {runtime}, driver up to {of_driver}", data={"runtime": runtime, "driver": of_driver}),
    ]


def _facts(host: Host) -> GpuFacts:
    """Return what NVML reports; without NVML, what the driver's file says."""
    try:
        return host.gpu()
    except DeviceError:
        return GpuFacts(None, _first_line(host.root / "proc/driver/nvidia/version"), None)


def _examine_memory(root: Path) -> Iterator[Finding]:
    lines = dict(line.split(":", 1) for line in _lines(root / "proc/meminfo") if ":" in line)
    if {"MemAvailable", "MemTotal"} <= lines.keys():
        available, total = (int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
        yield _room("memory", "available", available, total)
    disk = shutil.disk_usage(Path.cwd())
    yield _room("disk", f"free in {Path.cwd()}", disk.free, disk.total)


def _room(name: str, what: str, free: int, total: int) -> Finding:
    text = f"{size(free)} of {size(total)} {what}"
    return Finding(name, text, data={"free_bytes": free, "total_bytes": total})


def _examine_tensorrt(machine: str, jetson: Jetson | None, target: GpuKind | None) -> Iterator[Finding]:
    wanted = target.builder if target else None
    installs = {
        TENSORRT: "sudo apt install nvidia-jetpack, and create the environment with --system-site-packages"
        if jetson
        else ("pip install tensorrt" if machine == "aarch64" else "pip install 'wise-edge[tensorrt]'"),
        TENSORRT_RTX: "pip install 'wise-edge[rtx]'",
    }
    for name, title in ((TENSORRT, "TensorRT"), (TENSORRT_RTX, "TensorRT for RTX")):
        found, failure = _import_version(name)
        if found is None and name != wanted and not failure:
            continue
        known = _warn_of_tensorrt(found, target) if found and name == TENSORRT else None
        advice = failure or known or (None if found else f"run: {installs[name]}")
        yield Finding(title, found, advice, {"version": found})


def _warn_of_tensorrt(version: str, target: GpuKind | None) -> str | None:
    """Return what is known to be wrong with a version of TensorRT on a Jetson."""
    if target is None or not target.jetpack:
        return None
    if target.name == "thor" and version.startswith("10.13.3"):
        return (
            "users report wrong results of it on Thor, where products of the same input are fused at batch 1 "
            "(https://github.com/NVIDIA/TensorRT-Edge-LLM/issues/151); update to JetPack 7.2, or compare the answers "
            "with another backend's"
        )
    if version.startswith(("11.0.", "11.1.", "11.2.", "11.3.", "11.4.0")):
        return "it does not support a Jetson; run: pip uninstall -y tensorrt, and use JetPack's own"
    return None


def _import_version(module: str) -> tuple[str | None, str | None]:
    """Return a package's version, or why it cannot be imported; neither if it is not installed."""
    if find_spec(module) is None:
        return None, None
    try:
        return str(getattr(import_module(module), "__version__", "unknown")), None
    except (ImportError, OSError) as error:
        return None, f"it is installed but cannot be imported: {error}"


def _examine_onnxruntime(target: GpuKind | None, capability: Capability | None) -> Finding:
    if find_spec("onnxruntime") is None:
        return Finding("ONNX Runtime", None, "run: pip install 'wise-edge[onnx]'")
    onnxruntime = import_module("onnxruntime")
    graph = load(resolve_bundle(EMBEDDED)).file("sam.decoder")
    working: list[str] = []
    failing: dict[str, str] = {}
    for provider in onnxruntime.get_available_providers():
        try:
            OnnxSession(graph, provider)
        except WiseEdgeError as error:
            failing[provider] = str(error)
        else:
            working.append(provider)
    advice = f"{', '.join(failing)}: listed, but does not start" if failing else None
    if capability and (lack := find_gpu_lack(capability)):
        advice = lack
    elif capability and CUDA in failing:
        advice = failing[CUDA]
    elif capability and CUDA not in working:
        advice = (
            "on the CPU only: no wheel of onnxruntime-gpu holds code for a Jetson; use llama.cpp or TensorRT on its GPU"
            if target and target.jetpack
            else "it has no CUDA; run: pip uninstall -y onnxruntime && pip install 'wise-edge[gpu]'"
        )
    number = str(onnxruntime.__version__)
    data = {"version": number, "providers": working, "failing": list(failing)}
    return Finding("ONNX Runtime", f"{number}, {', '.join(working)}", advice, data)


def _examine_llama(capability: Capability | None) -> Finding:
    build = f"pip install {_LLAMA}"
    if capability:
        architecture = "{}{}".format(*capability)
        flags = f'CMAKE_ARGS="-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES={architecture}" FORCE_CMAKE=1'
        build = f"{flags} pip install --no-cache-dir --force-reinstall {_LLAMA}"
    try:
        found = version("llama-cpp-python")
    except PackageNotFoundError:
        return Finding("llama.cpp", None, f"run: {build}")
    if found not in TESTED_VERSIONS:
        return Finding("llama.cpp", found, f"this version was not tested; run: {build}")
    offloads = offloads_to_gpu()
    advice = f"it was built for the CPU; run: {build}" if capability and not offloads else None
    text = f"llama-cpp-python {found}, built for the {'GPU' if offloads else 'CPU'}"
    return Finding("llama.cpp", text, advice, {"version": found, "gpu": offloads})


def _examine_backends(capability: Capability | None) -> Iterator[Finding]:
    """Yield for each part which backends can run here, and what each of the others lacks."""
    device = find_capabilities(backends.BACKENDS, lambda: capability)
    for part in backends.PARTS:
        lacking: dict[str, str] = {}
        names = [backend.name for backend in backends.list_backends(part)]
        for backend in backends.list_backends(part):
            try:
                check_device(backend, device, part)
            except WiseEdgeError as error:
                lacking[backend.name] = str(error)
        available = [name for name in names if name not in lacking]
        briefly = ", ".join(f"{name} ({reason.partition(';')[0]})" for name, reason in lacking.items())
        text = f"{', '.join(available) or 'none'}{f'; not {briefly}' if briefly else ''}"
        yield Finding(f"{part} backends", text, data={"available": available, "lacking": lacking})


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(file: Path) -> str | None:
    return next(iter(_lines(file)), None)
