"""CPU equivalents of bfloat16 graphs: ONNX Runtime has no bfloat16 products there, so float32 replaces them, rounded.

The equivalent is made from the bundle's own graph: every bfloat16 array becomes float32, and each node's output is
rounded to bfloat16. A GPU does the same: it sums products in float32 and rounds at the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from wise_edge.bundle.manifest import BFLOAT16, ROUNDED_TO_BFLOAT16, Manifest
from wise_edge.bundle.store import write_manifest
from wise_edge.export.to_onnx.edit import DATA_SUFFIX, describe_graph, load_light, replace_nodes, save_onnx, values_of
from wise_edge.export.to_onnx.half import arrays_of_type


@contextmanager
def cpu_equivalent(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a bundle that ONNX Runtime runs on a CPU: the folder itself, or one with its bfloat16 graphs replaced.

    Args:
        folder: the bundle.
        manifest: its manifest.
    """
    roles = [part.role for part in manifest.artifacts if part.format == "onnx" and part.precision == BFLOAT16]
    if not roles:
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bf16.") as scratch:
        place = Path(scratch)
        kept = [part for part in manifest.artifacts if part.role.removesuffix(DATA_SUFFIX) not in roles]
        for part in kept:
            (place / part.path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / part.path, place / part.path)
        for role in roles:
            stand_in(folder / f"{role}.onnx", place / f"{role}.onnx")
        made = [part for role in roles for part in describe_graph(place, role, ROUNDED_TO_BFLOAT16)]
        write_manifest(place, replace(manifest, artifacts=(*kept, *made)))
        yield place


def stand_in(source: Path, target: Path) -> None:
    """Write a float32 graph that rounds wherever a bfloat16 graph does.

    Args:
        source: an ONNX file of `half.halve`.
        target: the file to write; weights above 2 GB go to a second one.
    """
    model = load_light(source)
    narrow = arrays_of_type(model, "BFLOAT16")
    for tensor in model.graph.initializer:
        if tensor.name in narrow:
            values = values_of(tensor, source).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        given = [name for name in node.output if name in narrow]
        if node.op_type == "Cast" and given:
            node = onnx.helper.make_node("Identity", [node.input[0]], given, node.name)
        node.output[:] = [f"{name}.exact" if name in narrow else name for name in node.output]
        nodes.append(node)
        for name in given:
            nodes += _round(name)
    replace_nodes(model, nodes)
    save_onnx(model, target, source)


def _round(name: str) -> list[onnx.NodeProto]:
    to, back = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    return [
        onnx.helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], f"{name}.round", to=to),
        onnx.helper.make_node("Cast", [f"{name}.rounded"], [name], f"{name}.back", to=back),
    ]
