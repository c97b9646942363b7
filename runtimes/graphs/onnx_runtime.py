"""A graph on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from wise_edge.bundle.roles import DECODER, MASK_GRAPHS, VISION
from wise_edge.bundle.store import Bundle
from wise_edge.native.onnxruntime_session import CPU, CUDA, OnnxSession, quiet_options
from wise_edge.policy.graph_io import present_names, vision_outputs
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.policy.graph import GraphPolicy
from wise_edge.sam.spec import SamSpec

_LARGE_SIDE = 512
"""Side in pixels of an encoder's input from which on fusions save more than loading takes."""


def open_policy(
    bundle: Bundle, row: Backend, *, threads: int | None, pixels: int | None = None, **_: Any
) -> GraphPolicy:
    """Open a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return GraphPolicy.of_bundle(row.name, bundle, pixels, partial(_open_graph, bundle, row, threads))


def open_mask(bundle: Bundle, row: Backend, *, threads: int | None, **_: Any) -> GraphMask:
    """Open a bundle's segmenter; see `wise_edge.runtimes.backends.Support`."""
    opener = partial(_open_graph, bundle, row, threads)
    encoder, decoder = map(opener, MASK_GRAPHS)
    return GraphMask(row.name, bundle.manifest.sam, encoder, decoder, opener, on_gpu=row.on_gpu is True)


def _open_graph(bundle: Bundle, row: Backend, threads: int | None, role: str) -> OnnxGraph:
    fuses = not row.on_gpu and gains_by_fusion(role, bundle.artifact(role).precision, bundle.manifest.sam)
    graph = OnnxGraph(bundle.file(role), CUDA if row.on_gpu else CPU, threads, fuses)
    graph.check_outputs(_needed_outputs(role, bundle))
    return graph


def gains_by_fusion(role: str, precision: str, spec: SamSpec) -> bool:
    """Return whether a graph gains more on a CPU by ONNX Runtime's every fusion than loading it then takes.

    Large encoders with convolutions take up to 15 % less time and change by less than 1e-6; SAM 2's takes 5 % less and
    changes by 1.1e-6 (docs/log.md). Small graphs stay bit-equal without.
    """
    large = spec.input_size >= _LARGE_SIDE and not spec.stretches
    return role == MASK_GRAPHS[0] and precision == "fp32" and large


def _needed_outputs(role: str, bundle: Bundle) -> Sequence[str]:
    """Return the outputs that a graph must have; those of the segmenter's encoder are its decoder's inputs."""
    if role == DECODER:
        return ["logits", *present_names(bundle.manifest.policy.num_layers)]
    if role.startswith(VISION):
        return vision_outputs(bundle.manifest.policy)
    if role != "sam.decoder":
        return []
    memory = bundle.manifest.sam.memory is not None
    return ["low_res_masks", "iou_predictions", *(["object_scores", "object_pointers"] if memory else [])]


class OnnxGraph(OnnxSession):
    """An ONNX file with the session options that suit a bundle; see `OnnxSession`.

    Args:
        file: the ONNX file.
        provider: ONNX Runtime's execution provider.
        threads: CPU threads of one operator; None starts one for each physical core.
        fuses: whether ONNX Runtime does every fusion it knows; see `gains_by_fusion`.
    """

    def __init__(self, file: Path, provider: str = CPU, threads: int | None = None, fuses: bool = False) -> None:
        super().__init__(file, provider, lambda onnxruntime: _options(onnxruntime, threads, fuses))


def _options(onnxruntime: ModuleType, threads: int | None, fuses: bool) -> Any:
    options = quiet_options(onnxruntime)
    # Fusions beyond the basic level take longer than they save on small graphs (benchmarks/cold_start.py).
    level = "ORT_ENABLE_ALL" if fuses else "ORT_ENABLE_BASIC"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    # The pattern of a first run is allocated in one piece beside it from the second on: MobileSAM's encoder took
    # 0.70 GB instead of 0.41, in the same time.
    options.enable_mem_pattern = False
    # A bundle's graphs run in turn: threads of one that spin while they wait take the cores from the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
