"""Which backend runs a part of a bundle: a pure function of the bundle, the packages of this device and the wish.

"auto" lists every backend that could run, best first, and the next one is tried when one does not start. A name lists
that backend alone: an explicit wish never falls back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from wise_edge.bundle.devices import EXTRAS, Capability, find_gpu_kind
from wise_edge.bundle.engines import EDGELLM_FOLDER, PLAN_ROLE, engine_role
from wise_edge.bundle.manifest import BFLOAT16, Manifest
from wise_edge.errors import DeviceError, MissingExtraError, UsageError
from wise_edge.sam.spec import SAM2

BACKENDS = {
    "policy": ("tensorrt", "edgellm", "onnx-cuda", "llama-gpu", "onnx", "llama", "torch"),
    "mask": ("tensorrt", "onnx-cuda", "onnx", "torch"),
}
"""The backends of each part, the one to try first in front."""
GRAPHS = {"policy": ("policy.vision", "policy.decoder"), "mask": ("sam.encoder", "sam.decoder")}
"""The graphs of each part, which ONNX Runtime runs, and TensorRT as engines."""
TOKEN_ROLES = {"policy": ("policy.embedding", "policy.tokenizer"), "mask": ()}
"""What each part needs of a bundle beside its graphs."""
LLAMA_ROLES = ("policy.gguf", "policy.mmproj", "policy.tokenizer")
"""What llama.cpp needs of a bundle."""
EDGELLM_ROLES = (f"{EDGELLM_FOLDER}/config.json", "policy.tokenizer")
"""What TensorRT Edge-LLM needs of a bundle: a checkpoint in that folder."""
CHECKPOINTS = {"policy": "policy", "mask": "sam"}
"""For each part, the entry of the manifest's provenance that names its checkpoint."""

CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Device:
    """What this device offers.

    Attributes:
        packages: import names of the optional packages that are installed.
        providers: ONNX Runtime's execution providers, empty without onnxruntime.
        llama_gpu: whether llama-cpp-python was built for a GPU.
        gpu: compute capability of the GPU; None without one, or where the bundle has nothing for TensorRT.
    """

    packages: Collection[str]
    providers: Collection[str]
    llama_gpu: bool = False
    gpu: Capability | None = None


@dataclass(frozen=True)
class Candidate:
    """A backend that could run a part, and why it is where it is in the list."""

    backend: str
    reason: str


def list_candidates(manifest: Manifest, device: Device, part: str, requested: str) -> tuple[Candidate, ...]:
    """List the backends to try, in order.

    Args:
        manifest: the bundle's.
        device: what is installed.
        part: "policy" or "mask".
        requested: "auto" or a backend's name.

    Returns:
        At least one candidate; exactly one where the request is a name.

    Raises:
        UsageError: no backend has that name.
        MissingExtraError: the backend's package is not installed; under "auto" that of "onnx".
        DeviceError: the bundle or the device cannot do it.
    """
    if requested == "auto":
        return _all_candidates(manifest, device, part)
    if requested not in BACKENDS[part]:
        raise UsageError(f"unknown {part} backend '{requested}'; choose one of auto, {', '.join(BACKENDS[part])}")
    _CHECKS[requested](manifest, device, part)
    return (Candidate(requested, "asked for by name"),)


def list_rejected(manifest: Manifest, device: Device, part: str, chosen: str) -> tuple[str, ...]:
    """Return why no backend that stands before the chosen one runs a part, best first."""
    reasons = []
    for backend in BACKENDS[part][: BACKENDS[part].index(chosen)]:
        try:
            _CHECKS[backend](manifest, device, part)
        except (DeviceError, MissingExtraError) as error:
            reasons.append(f"{backend}: {error}")
    return tuple(reasons)


def _all_candidates(manifest: Manifest, device: Device, part: str) -> tuple[Candidate, ...]:
    found = []
    for backend in BACKENDS[part]:
        try:
            _CHECKS[backend](manifest, device, part)
        except (DeviceError, MissingExtraError):
            continue
        found.append(Candidate(backend, _REASONS[backend]))
    if not found:  # let the first that the bundle has files for say what the user should mend
        has_gguf = (
            part == "policy"
            and not _missing(manifest, LLAMA_ROLES)
            and _missing(manifest, (*GRAPHS[part], *TOKEN_ROLES[part]))
        )
        _CHECKS["llama" if has_gguf else "onnx"](manifest, device, part)
    return tuple(found)


def _missing(manifest: Manifest, roles: Collection[str]) -> list[str]:
    present = {artifact.role for artifact in manifest.artifacts}
    return [role for role in roles if role not in present]


def _check_onnx(manifest: Manifest, device: Device, part: str) -> None:
    if missing := _missing(manifest, (*GRAPHS[part], *TOKEN_ROLES[part])):
        raise DeviceError(f"the bundle has no {missing[0]} for ONNX Runtime; export it with --target onnx")
    precisions = {artifact.role: artifact.precision for artifact in manifest.artifacts}
    if BFLOAT16 in (precisions[graph] for graph in GRAPHS[part]):
        raise DeviceError(f"the bundle's {part} is in bf16, which TensorRT alone runs; export it in fp16 or fp32")
    if "onnxruntime" not in device.packages:
        raise MissingExtraError("onnxruntime", "onnx")


def _check_onnx_cuda(manifest: Manifest, device: Device, part: str) -> None:
    _check_onnx(manifest, device, part)
    if CUDA_PROVIDER not in device.providers:
        raise DeviceError("this onnxruntime has no CUDA; run: pip install 'wise-edge[gpu]'")


def _check_llama(manifest: Manifest, device: Device, _: str) -> None:
    if missing := _missing(manifest, LLAMA_ROLES):
        raise DeviceError(f"the bundle has no {missing[0]} for llama.cpp; export it with --target gguf")
    if "llama_cpp" not in device.packages:
        raise MissingExtraError("llama_cpp", "llama")


def _check_llama_gpu(manifest: Manifest, device: Device, part: str) -> None:
    _check_llama(manifest, device, part)
    if not device.llama_gpu:
        raise DeviceError("this llama-cpp-python was built for the CPU; build it with CMAKE_ARGS=-DGGML_CUDA=on")


def _check_tensorrt(manifest: Manifest, device: Device, part: str) -> None:
    if _missing(manifest, (PLAN_ROLE, *TOKEN_ROLES[part])):
        raise DeviceError("the bundle has no engines for TensorRT; export it with --target tensorrt --device NAME")
    if device.gpu is None:
        raise DeviceError("TensorRT needs an NVIDIA GPU, none is found here; see: wise-edge doctor")
    target = find_gpu_kind(device.gpu)
    if missing := _missing(manifest, [engine_role(graph, target.engine_set) for graph in GRAPHS[part]]):
        raise DeviceError(f"the bundle has no {missing[0]} for this GPU ({target.name}); run: wise-edge build BUNDLE")
    if target.builder not in device.packages:
        raise MissingExtraError(target.builder, EXTRAS[target.builder])


def _check_edgellm(manifest: Manifest, device: Device, _: str) -> None:
    if _missing(manifest, EDGELLM_ROLES):
        raise DeviceError("the bundle has no checkpoint for TensorRT Edge-LLM; export it with --target edgellm")
    if device.gpu is None:
        raise DeviceError("TensorRT Edge-LLM needs an NVIDIA GPU, none is found here; see: wise-edge doctor")
    if "tensorrt_edgellm" not in device.packages:
        raise MissingExtraError("tensorrt_edgellm", "edgellm")


def _check_torch(manifest: Manifest, device: Device, part: str) -> None:
    if CHECKPOINTS[part] not in manifest.provenance:
        raise DeviceError(f"the bundle names no checkpoint of its {part}; export it again")
    if f"{CHECKPOINTS[part]}_adapter" in manifest.provenance:
        raise DeviceError(f"the bundle's {part} has an adapter merged, which its checkpoint lacks; torch cannot run it")
    needs_transformers = part == "policy" or manifest.sam.family == SAM2
    for package in ("torch", "transformers" if needs_transformers else "segment_anything"):
        if package not in device.packages:
            raise MissingExtraError(package, "export")


_CHECKS: dict[str, Callable[[Manifest, Device, str], None]] = {
    "tensorrt": _check_tensorrt,
    "edgellm": _check_edgellm,
    "onnx-cuda": _check_onnx_cuda,
    "onnx": _check_onnx,
    "llama-gpu": _check_llama_gpu,
    "llama": _check_llama,
    "torch": _check_torch,
}
_REASONS = {
    "tensorrt": "TensorRT runs the engines that were built for this GPU",
    "edgellm": "TensorRT Edge-LLM builds engines from the bundle's checkpoint and runs them",
    "onnx-cuda": "ONNX Runtime with CUDA is installed",
    "onnx": "ONNX Runtime runs the bundle's graphs on the CPU",
    "llama-gpu": "llama.cpp is built for a GPU",
    "llama": "llama.cpp runs the bundle's GGUF files on the CPU",
    "torch": "nothing else can run it; torch runs the checkpoint that the bundle was made from",
}
