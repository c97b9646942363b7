"""The backends, one row each, in order of preference.

Dispatch, opening, `--help`, `wise-edge doctor` and the comparison after an export read this table: a new backend is a
row here and the module that the row names. `wise-edge --help` imports this module, so it imports no library; rows
import what they need when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from wise_edge.bundle.roles import (
    DECODER,
    EDGELLM_FOLDER,
    EMBEDDING,
    GGUF_TEXT,
    GGUF_VISION,
    MASK_GRAPHS,
    PLAN_ROLE,
    TOKENIZER,
    engine_role,
    mask_graphs,
)
from wise_edge.errors import DeviceError, MissingExtraError
from wise_edge.extras import require

if TYPE_CHECKING:
    from wise_edge.bundle.manifest import Manifest
    from wise_edge.runtimes.dispatch import DeviceCapabilities

PARTS = ("policy", "mask")
_OTHER_NAMES = {
    **dict.fromkeys(("cuda", "gpu", "nvidia"), ("onnx-cuda", "llama-gpu")),
    "cpu": ("onnx", "llama"),
    **dict.fromkeys(("trt", "tensor-rt"), ("tensorrt",)),
    **dict.fromkeys(("ort", "onnxruntime"), ("onnx", "onnx-cuda")),
    **dict.fromkeys(("gguf", "llama.cpp", "llama-cpp", "llamacpp"), ("llama", "llama-gpu")),
    "pytorch": ("torch",),
}
"""Names that devices, runtimes and files have elsewhere, for suggestions -> the backends meant."""
CHECKPOINTS = {"policy": "policy", "mask": "sam"}
"""For each part, the entry of the manifest's provenance that names its checkpoint."""


@dataclass(frozen=True, eq=False)
class Support:
    """How a backend runs one part of a bundle.

    Attributes:
        module: opens it: its function `open_policy` or `open_mask` accepts the bundle, the backend's row, and the
            keyword arguments `threads` (CPU threads of one graph or None) and `flash_attention` (bool or None).
        roles: artifacts that the bundle must have.
        packages: import names of the packages that must be installed.
    """

    module: str
    roles: tuple[str, ...]
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Backend:
    """A backend: what it runs, what it needs of a bundle and of a device, and how it is opened.

    Attributes:
        name: as `--policy-backend` and `--mask-backend` accept it.
        runtime: the runtime's own name, for messages.
        reason: why "auto" chooses it.
        extra: the extra of wise-edge that installs its packages.
        parts: how it runs "policy" and "mask"; a part that is not there it does not run.
        target: the `wise-edge export --target` that writes what it needs, with further options; empty if none does.
        on_gpu: whether it runs on a GPU; a function if that depends on the machine.
        needs_nvidia: whether an NVIDIA GPU must be present.
        build_fits: asks the installed package whether its build serves this backend; None if every build does.
        build_advice: what is wrong if it does not, and what to do.
        check_bundle: raises if the bundle's part cannot run here although the artifacts exist.
        check_device: raises if the device lacks something that the other attributes do not describe.
        overlap_mask_encoding: whether encoding an image for the segmenter while the policy writes saves time.
    """

    name: str
    runtime: str
    reason: str
    extra: str
    parts: Mapping[str, Support]
    target: str = ""
    on_gpu: bool | Callable[[], bool] = False
    needs_nvidia: bool = False
    build_fits: Callable[[], bool] | None = None
    build_advice: str = ""
    check_bundle: Callable[[Manifest, DeviceCapabilities, str], None] | None = None
    check_device: Callable[[DeviceCapabilities], None] | None = None
    overlap_mask_encoding: bool = False


def list_backends(part: str) -> tuple[Backend, ...]:
    """Return the backends that run a part, "policy" or "mask", in order of preference."""
    return tuple(backend for backend in BACKENDS if part in backend.parts)


def find_backend(name: str) -> Backend:
    """Return the backend of a name that is in the table."""
    return next(backend for backend in BACKENDS if backend.name == name)


def list_names(part: str) -> str:
    """Return what a user may ask for, as prose: "auto, onnx or torch"."""
    names = ["auto", *(backend.name for backend in list_backends(part))]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def suggest_names(part: str, wrong: str) -> str:
    """Return the names that a user may have meant by one that no backend has, as prose; empty if nothing is near."""
    known = [backend.name for backend in list_backends(part)]
    wrong = str(wrong).lower()
    meant = [name for name in _OTHER_NAMES.get(wrong, ()) if name in known]
    return " or ".join(meant or get_close_matches(wrong, known, 1))


def list_cpu_policies(roles: Iterable[str]) -> list[str]:
    """Return the names of the policy backends that run a bundle with these roles on any CPU, best first."""
    found = set(roles)
    policies = ((backend, set(backend.parts["policy"].roles)) for backend in list_backends("policy"))
    return [backend.name for backend, needed in policies if backend.on_gpu is False and needed and needed <= found]


def any_on_gpu(names: Collection[str]) -> bool:
    """Return whether one of the named backends runs on a GPU."""
    found = (backend.on_gpu for backend in BACKENDS if backend.name in names)
    return any(on_gpu if isinstance(on_gpu, bool) else on_gpu() for on_gpu in found)


def _graphs(manifest: Manifest, part: str) -> tuple[str, ...]:
    from wise_edge.policy.graph_io import policy_graphs

    return policy_graphs(manifest.policy) if part == "policy" else mask_graphs(memory=manifest.sam.memory is not None)


def _check_precision(manifest: Manifest, _: DeviceCapabilities, part: str) -> None:
    from wise_edge.bundle.manifest import BFLOAT16

    graphs = _graphs(manifest, part)
    if any(artifact.role in graphs and artifact.precision == BFLOAT16 for artifact in manifest.artifacts):
        raise DeviceError(f"the bundle's {part} is in bf16, which only TensorRT runs; export it in fp16 or fp32")


def _check_engines(manifest: Manifest, device: DeviceCapabilities, part: str) -> None:
    from wise_edge.bundle.devices import find_gpu_kind

    if device.gpu is None:
        return
    kind, present = find_gpu_kind(device.gpu), {artifact.role for artifact in manifest.artifacts}
    for graph in _graphs(manifest, part):
        if (role := engine_role(graph, kind.engine_set)) not in present:
            raise DeviceError(f"the bundle has no {role} for this GPU ({kind.name}); run: wise-edge build BUNDLE")


def _check_builder(device: DeviceCapabilities) -> None:
    from wise_edge.bundle.devices import EXTRAS, find_gpu_kind

    if device.gpu is not None and (builder := find_gpu_kind(device.gpu).builder) not in device.packages:
        raise MissingExtraError(builder, EXTRAS[builder])


def _check_checkpoint(manifest: Manifest, device: DeviceCapabilities, part: str) -> None:
    from wise_edge.sam.families import LIBRARIES

    entry = CHECKPOINTS[part]
    if entry not in manifest.provenance:
        raise DeviceError(f"the bundle names no checkpoint of its {part}; export it again")
    if f"{entry}_adapter" in manifest.provenance:
        raise DeviceError(f"the bundle's {part} has an adapter merged, which its checkpoint lacks; torch cannot run it")
    for library in ("transformers",) if part == "policy" else manifest.sam.row.libraries:
        if "torch" in device.packages and library not in device.packages:
            raise MissingExtraError(library, LIBRARIES[library])


def _onnxruntime_has_cuda() -> bool:
    from wise_edge.native.onnxruntime_session import CUDA

    return CUDA in require("onnxruntime", "gpu").get_available_providers()


def _check_gpu_code(device: DeviceCapabilities) -> None:
    from wise_edge.native.onnxruntime_session import find_gpu_lack

    if device.gpu is not None and (lack := find_gpu_lack(device.gpu)):
        raise DeviceError(lack)


def _llama_offloads() -> bool:
    from wise_edge.native.llama_library import offloads_to_gpu

    return offloads_to_gpu()


def _torch_has_cuda() -> bool:
    return bool(require("torch", "export").cuda.is_available())


_RUNTIMES = "wise_edge.runtimes"
_ENGINES = f"{_RUNTIMES}.graphs.tensorrt_engine"
_GRAPHS = f"{_RUNTIMES}.graphs.onnx_runtime"
_ONNX_PARTS = {
    "policy": Support(_GRAPHS, (DECODER, EMBEDDING, TOKENIZER), ("onnxruntime",)),
    "mask": Support(_GRAPHS, MASK_GRAPHS, ("onnxruntime",)),
}
_LLAMA_PARTS = {"policy": Support(f"{_RUNTIMES}.policy.llama", (GGUF_TEXT, GGUF_VISION, TOKENIZER), ("llama_cpp",))}

BACKENDS = (
    Backend(
        "tensorrt",
        "TensorRT",
        "TensorRT runs the engines that were built for this GPU",
        "tensorrt",
        {"policy": Support(_ENGINES, (PLAN_ROLE, EMBEDDING, TOKENIZER)), "mask": Support(_ENGINES, (PLAN_ROLE,))},
        "tensorrt --device NAME",
        on_gpu=True,
        needs_nvidia=True,
        check_bundle=_check_engines,
        check_device=_check_builder,
        overlap_mask_encoding=True,
    ),
    Backend(
        "edgellm",
        "TensorRT Edge-LLM",
        "TensorRT Edge-LLM builds engines from the bundle's checkpoint and runs them",
        "edgellm",
        {
            "policy": Support(
                f"{_RUNTIMES}.policy.edgellm", (f"{EDGELLM_FOLDER}/config.json", TOKENIZER), ("tensorrt_edgellm",)
            )
        },
        "edgellm --device NAME",
        on_gpu=True,
        needs_nvidia=True,
    ),
    Backend(
        "onnx-cuda",
        "ONNX Runtime",
        "ONNX Runtime with CUDA is installed",
        "gpu",
        _ONNX_PARTS,
        "onnx",
        on_gpu=True,
        build_fits=_onnxruntime_has_cuda,
        build_advice="this onnxruntime has no CUDA; run: pip install 'wise-edge[gpu]' (it serves no Jetson)",
        check_bundle=_check_precision,
        check_device=_check_gpu_code,
    ),
    Backend(
        "llama-gpu",
        "llama.cpp",
        "llama.cpp is built for a GPU",
        "llama",
        _LLAMA_PARTS,
        "gguf",
        on_gpu=True,
        build_fits=_llama_offloads,
        build_advice="this llama-cpp-python was built for the CPU; build it with CMAKE_ARGS=-DGGML_CUDA=on",
    ),
    Backend(
        "onnx",
        "ONNX Runtime",
        "ONNX Runtime runs the bundle's graphs on the CPU",
        "onnx",
        _ONNX_PARTS,
        "onnx",
        check_bundle=_check_precision,
    ),
    Backend("llama", "llama.cpp", "llama.cpp runs the bundle's GGUF files on the CPU", "llama", _LLAMA_PARTS, "gguf"),
    Backend(
        "torch",
        "torch",
        "nothing else can run it; torch runs the checkpoint that the bundle was made from",
        "export",
        {
            "policy": Support(f"{_RUNTIMES}.policy.torch_policy", (), ("torch", "transformers")),
            "mask": Support(f"{_RUNTIMES}.mask.torch_mask", (), ("torch",)),
        },
        on_gpu=_torch_has_cuda,
        check_bundle=_check_checkpoint,
    ),
)
"""Every backend, the one to try first in front."""
