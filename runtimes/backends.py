"""Opening the backends of a bundle on this device, in dispatch's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from wise_edge.bundle.engines import EDGELLM_FOLDER, PLAN_ROLE
from wise_edge.bundle.manifest import Manifest
from wise_edge.bundle.store import Bundle, resolve_checkpoint
from wise_edge.errors import DeviceError
from wise_edge.extras import require
from wise_edge.native.cuda import find_capability
from wise_edge.native.llama import offloads_to_gpu
from wise_edge.native.onnxruntime_session import CPU, CUDA
from wise_edge.runtimes.base import BackendChoice, Graph, MaskBackend, PolicyBackend, Tuning
from wise_edge.runtimes.dispatch import (
    CHECKPOINTS,
    EDGELLM_ROLES,
    GRAPHS,
    LLAMA_ROLES,
    Candidate,
    Device,
    list_candidates,
    list_rejected,
)
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.policy.graph import GraphPolicy
from wise_edge.runtimes.policy.llama import LlamaPolicy

_PACKAGES = (
    "onnxruntime",
    "llama_cpp",
    "torch",
    "transformers",
    "segment_anything",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_edgellm",
)
_RESIDENT = {"policy.decoder": ("present_",), "sam.encoder": ("",)}
"""Outputs of engines that stay on the GPU, by the beginnings of their names: keys and values, an image's features."""
_PROVIDERS = {"onnx": CPU, "onnx-cuda": CUDA}

BackendT = TypeVar("BackendT")


def open_backends(
    bundle: Bundle, requested_policy: str, requested_mask: str, tuning: Tuning
) -> tuple[PolicyBackend[Any], MaskBackend[Any], dict[str, BackendChoice]]:
    """Open a policy and a mask backend, with the reason for each choice.

    Args:
        bundle: what is run.
        requested_policy: "auto" or a backend's name.
        requested_mask: likewise.
        tuning: what the user set.

    Raises:
        UsageError, MissingExtraError, DeviceError: as `list_candidates`, or no candidate started.
    """
    device = find_device(bundle.manifest)
    policies = list_candidates(bundle.manifest, device, "policy", requested_policy)
    masks = list_candidates(bundle.manifest, device, "mask", requested_mask)
    policy, policy_choice = _open_first(policies, lambda backend: _open_policy(bundle, backend, tuning))
    mask, mask_choice = _open_first(masks, lambda backend: _open_mask(bundle, backend, tuning.threads))
    choices = {"policy": policy_choice, "mask": mask_choice}
    for part, choice in choices.items():
        rejected = list_rejected(bundle.manifest, device, part, choice.name)
        choices[part] = replace(choice, rejected=rejected)
    return policy, mask, choices


def find_device(manifest: Manifest) -> Device:
    """Find out which optional packages are installed and what they were built for.

    llama.cpp takes half a second to import and is asked only where a bundle has files for it, as is CUDA.
    """
    packages = frozenset(package for package in _PACKAGES if find_spec(package) is not None)
    providers = require("onnxruntime", "onnx").get_available_providers() if "onnxruntime" in packages else ()
    has_gguf = any(artifact.format == "gguf" for artifact in manifest.artifacts)
    for_tensorrt = any(artifact.role in (PLAN_ROLE, EDGELLM_ROLES[0]) for artifact in manifest.artifacts)
    return Device(
        packages,
        tuple(providers),
        has_gguf and "llama_cpp" in packages and offloads_to_gpu(),
        find_capability() if for_tensorrt else None,
    )


def _open_first(candidates: tuple[Candidate, ...], opener: Callable[[str], BackendT]) -> tuple[BackendT, BackendChoice]:
    failures: list[str] = []
    for candidate in candidates:
        try:
            backend = opener(candidate.backend)
        except DeviceError as error:
            failures.append(f"{candidate.backend} did not start: {error}")
            continue
        return backend, BackendChoice(candidate.backend, "; ".join([candidate.reason, *failures]))
    raise DeviceError("; ".join(failures))


def _open_policy(bundle: Bundle, backend: str, tuning: Tuning) -> PolicyBackend[Any]:
    if backend == "torch":
        from wise_edge.runtimes.policy.torch_policy import TorchPolicy

        return TorchPolicy(_checkpoint(bundle, "policy"))
    if backend in ("llama", "llama-gpu"):
        files = [bundle.file(role) for role in LLAMA_ROLES]
        return LlamaPolicy(backend, bundle.manifest.policy, *files, gpu=backend == "llama-gpu", **asdict(tuning))
    if backend == "edgellm":
        from wise_edge.runtimes.policy.edgellm import EdgellmPolicy

        checkpoint, tokenizer = bundle.directory / EDGELLM_FOLDER, bundle.file("policy.tokenizer")
        return EdgellmPolicy(backend, bundle.manifest.policy, checkpoint, tokenizer)
    vision, decoder = _graphs(bundle, "policy", backend, tuning.threads)
    embedding, tokenizer = bundle.file("policy.embedding"), bundle.file("policy.tokenizer")
    return GraphPolicy(backend, bundle.manifest.policy, vision, decoder, embedding, tokenizer)


def _open_mask(bundle: Bundle, backend: str, threads: int | None) -> MaskBackend[Any]:
    if backend == "torch":
        from wise_edge.runtimes.mask.torch_mask import open_torch_mask

        return open_torch_mask(_checkpoint(bundle, "mask"))
    encoder, decoder = _graphs(bundle, "mask", backend, threads)
    return GraphMask(backend, bundle.manifest.sam, encoder, decoder)


def _graphs(bundle: Bundle, part: str, backend: str, threads: int | None) -> list[Graph]:
    if backend == "tensorrt":
        from wise_edge.runtimes.graphs.tensorrt_engine import EngineRuntime

        runtime = EngineRuntime(bundle)
        return [runtime.open(graph, _RESIDENT.get(graph, ())) for graph in GRAPHS[part]]
    return [OnnxGraph(bundle.file(graph), _PROVIDERS[backend], threads) for graph in GRAPHS[part]]


def _checkpoint(bundle: Bundle, part: str) -> Path:
    entry = CHECKPOINTS[part]
    folder = resolve_checkpoint(bundle.manifest.provenance[entry], entry)
    if not folder.exists():
        raise DeviceError(f"the bundle was made from {folder}, which is not here; choose another {part} backend")
    return folder
