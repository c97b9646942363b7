"""`--target onnx`: a policy's graphs and its token embedding in a bundle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wise_edge.bundle.manifest import Artifact, Figure
from wise_edge.bundle.roles import DECODER, EMBEDDING
from wise_edge.bundle.store import describe_file
from wise_edge.errors import UsageError
from wise_edge.export.precisions import ONNX_PRECISIONS
from wise_edge.export.progress import Progress
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.source.reference import vision_inputs
from wise_edge.export.to_onnx import verify
from wise_edge.export.to_onnx.blocks import quantize_weights
from wise_edge.export.to_onnx.edit import describe_graph, replace_graph
from wise_edge.export.to_onnx.fp8 import quantize_fp8
from wise_edge.export.to_onnx.half import HALF_TYPES, halve
from wise_edge.export.to_onnx.language import LanguageModel, embedding_table
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.export.to_onnx.vision import VisionTower
from wise_edge.policy.architecture import load_config
from wise_edge.policy.graph_io import (
    DEEPSTACK,
    past_names,
    patch_grid,
    patch_values,
    present_names,
    vision_graphs,
    vision_outputs,
)
from wise_edge.policy.spec import PolicySpec

VISION_PRECISION = {precision: precision for precision in ONNX_PRECISIONS} | {"int4": "int8"}
"""The vision tower's precision for each of the language model, whose head keeps 8 bits too."""
_DECODER = f"{DECODER}.onnx"
_EMBEDDING = f"{EMBEDDING}.npy"


def check_attention(folder: Path) -> None:
    """Raise `UsageError` if a checkpoint's language model does not attend to all earlier tokens, as the graphs do.

    The comparison with torch is too short to show a window of thousands of tokens.
    """
    text = load_config(folder).text_config
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        raise UsageError(
            f"{folder}: use_sliding_window is true in config.json, and graphs attend to all tokens; use it with "
            "--policy-backend torch, or set it to false if the model was trained without"
        )


def export_policy(
    source: PolicyCheckpoint, out: Path, precision: str, fp16_arithmetic: bool, progress: Progress
) -> list[Artifact]:
    """Write vision tower, language model and token embedding into a bundle's folder.

    Args:
        source: the policy.
        out: the folder.
        precision: one of `ONNX_PRECISIONS`.
        fp16_arithmetic: compute in half precision next to eight-bit floats and weights of 8 or 4 bits.
        progress: called at each step.
    """
    for grid, role in vision_graphs(source.spec).items():
        progress(f"exporting the policy's vision tower for {grid[0]} x {grid[1]} image tokens")
        _export_vision(source.model, source.spec, *patch_grid(source.spec, grid), out / f"{role}.onnx")
    progress("exporting the policy's language model")
    _export_decoder(source.model, source.spec, out / _DECODER)
    table = embedding_table(source.model)
    np.save(out / _EMBEDDING, table)
    float32: dict[str, list[str]] = {}
    if precision != "fp32":
        float32 = _lower(source, out, precision, fp16_arithmetic or precision in HALF_TYPES, progress)
    return [
        *chain.from_iterable(
            describe_graph(out, role, VISION_PRECISION[precision], float32.get(role, ()))
            for role in vision_graphs(source.spec).values()
        ),
        *describe_graph(out, DECODER, precision, float32.get(DECODER, ())),
        describe_file(out, _EMBEDDING, EMBEDDING, "npy", f"fp{table.dtype.itemsize * 8}"),
    ]


def compare_policy(source: PolicyCheckpoint, out: Path, precision: str, progress: Progress) -> list[Figure]:
    """Compare the files of `export_policy` with torch; lower precision is judged by the masks of complete queries."""
    progress("comparing the policy's graphs with torch")
    figures = list(verify.verify_policy(source.model, source.spec, out))
    if precision != "fp32":
        figures = [replace(figure, at_most=None) for figure in figures]
    return [*figures, verify.verify_embedding(source.model, np.load(out / _EMBEDDING))]


def _lower(
    source: PolicyCheckpoint, out: Path, precision: str, fp16_arithmetic: bool, progress: Progress
) -> dict[str, list[str]]:
    """Lower the graphs' precision; return the layers of each that stay float32, by the graph's role."""
    decoder, measured = out / _DECODER, fp16_arithmetic or precision == "fp8"
    references = source.references if measured else []
    words = [source.torch_reference.graph_inputs(each)[1] for each in references]
    source.release()  # a large policy's weights and those of a graph do not fit into memory together
    progress(f"bringing the policy's graphs to {precision}")
    arithmetic = precision if precision in HALF_TYPES else "fp16"
    float32: dict[str, list[str]] = {}
    grids = {out / f"{role}.onnx": grid for grid, role in vision_graphs(source.spec).items()}
    for file in (*grids, decoder):
        # Of one graph at a time: a picture of 840 px has 17 MB of patches.
        given = words if file == decoder else [vision_inputs(source.spec, each, grids[file]) for each in references]
        if precision.startswith("int"):
            bits, kept = (int(precision[3:]), ("logits",)) if file == decoder else (8, ())
            replace_graph(file, partial(quantize_weights, bits=bits, keep_8_bits=kept))
        if precision == "fp8":
            replace_graph(file, partial(quantize_fp8, batches=given, keep=("logits",)))
        if fp16_arithmetic:
            float32[file.stem] = replace_graph(file, partial(halve, batches=given, precision=arithmetic))
    return float32


def _export_vision(model: Any, spec: PolicySpec, columns: int, rows: int, file: Path) -> None:
    """Export the vision tower for images of columns x rows patches."""
    patches = torch.zeros(columns * rows, patch_values(spec))
    module = VisionTower(model.model.visual, columns, rows)
    export_onnx(module, (patches,), ["pixel_values"], vision_outputs(spec), file)


def _export_decoder(model: Any, spec: PolicySpec, file: Path) -> None:
    length, past_length = 4, 3  # any but 0 and 1, which torch.export would treat as constants
    past_inputs = past_names(spec.num_layers)
    past = tuple(torch.zeros(1, spec.num_kv_heads, past_length, spec.head_dim) for _ in past_inputs)
    embeds = torch.zeros(1, length, spec.hidden_size)
    positions = torch.zeros(3, 1, length, dtype=torch.int64)
    tokens, before = (torch.export.Dim(name, min=2, max=spec.max_positions) for name in ("tokens", "past"))
    inputs: list[Any] = [embeds, positions, past]
    names = ["inputs_embeds", "position_ids", *past_inputs]
    dynamic: list[Any] = [{1: tokens}, {2: tokens}, tuple({2: before} for _ in past)]
    if spec.deepstack_layers:
        inputs.append(torch.zeros(spec.deepstack_layers, length, spec.hidden_size))
        names.append(DEEPSTACK)
        dynamic.append({1: tokens})
    outputs = ["logits", *present_names(spec.num_layers)]
    export_onnx(LanguageModel(model), tuple(inputs), names, outputs, file, dynamic=tuple(dynamic))
